from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.data import GenerationQuery, Message, Query, ScoringQuery, TrainingExample
from backends.errors import DataError, UnsupportedError
from backends.local.encoding import Encoder
from backends.local.models import locate
from backends.local.sequences import TokenSequence
from tests.models import EMBEDDED


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate(EMBEDDED))


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, context_length=200)


def chat(*turns: tuple[str, str], weight: int | None = None) -> TrainingExample:
    weights = {1: weight}
    return TrainingExample.model_validate(
        {
            "messages": tuple(
                Message.model_validate({"role": role, "content": content, "weight": weights.get(i)})
                for i, (role, content) in enumerate(turns)
            )
        }
    )


def learned(tokenizer: PreTrainedTokenizerBase, example: TokenSequence) -> str:
    kept = [example.tokens[position] for position in example.targets]
    return str(tokenizer.decode(kept))


def test_the_answer_and_its_end_are_learned_and_nothing_else(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    example = encoder.example(chat(("user", "Hi"), ("assistant", "Paris")), "completion")
    assert learned(tokenizer, example) == "Paris<|im_end|>"
    assert str(tokenizer.decode(example.tokens)).endswith("<|im_start|>assistant\nParis<|im_end|>")


def test_every_assistant_turn_is_learned_unless_its_weight_is_0(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = (("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"))
    both = encoder.example(chat(*turns), "completion")
    assert learned(tokenizer, both) == "one<|im_end|>two<|im_end|>"
    last = encoder.example(chat(*turns, weight=0), "completion")
    assert learned(tokenizer, last) == "two<|im_end|>"
    assert last.tokens == both.tokens


def test_a_chat_of_an_answer_alone_is_learned_after_the_assistants_header(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    example = encoder.example(chat(("assistant", "Yo")), "completion")
    assert learned(tokenizer, example) == "Yo<|im_end|>"
    text = str(tokenizer.decode(example.tokens))
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>")
    assert "<|im_start|>user" not in text


def test_an_answer_alone_is_refused_where_the_template_does_not_show_its_beginning() -> None:
    other = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    other.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(DataError, match=r"messages\.0: where the answer begins can't be told"):
        Encoder(other, 200).example(chat(("assistant", "Yo")), "completion")


def test_prompt_and_completion_learns_all_but_the_first_token(encoder: Encoder) -> None:
    example = encoder.example(chat(("user", "Hi"), ("assistant", "Paris")), "prompt_and_completion")
    assert example.targets == list(range(1, len(example.tokens)))


def test_text_examples_end_with_the_end_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    example = encoder.example(TrainingExample(prompt="2 + 2 =", completion=" 4"), "completion")
    assert learned(tokenizer, example) == f" 4{tokenizer.eos_token}"


def test_trailing_space_of_a_text_prompt_moves_to_the_candidate(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    # lm-evaluation-harness's rule
    spaced = ScoringQuery(id="q", prompt="The capital is ", candidates={"a": "Paris"})
    plain = ScoringQuery(id="q", prompt="The capital is", candidates={"a": " Paris"})
    assert encoder.query(spaced) == encoder.query(plain)
    assert encoder.query(plain).candidates["a"] == tokenizer.encode(" Paris")


def test_an_empty_text_prompt_is_the_beginning_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    query = encoder.query(ScoringQuery(id="q", prompt="", candidates={"a": "Paris"}))
    assert query.context == [tokenizer.bos_token_id]


def test_a_candidate_that_the_prompts_end_swallows_is_refused(encoder: Encoder) -> None:
    query = ScoringQuery(id="q7", prompt="The capit", candidates={"a": "al"})
    with pytest.raises(DataError, match=r"query 'q7', candidate 'a': with the prompt's end it"):
        encoder.query(query)


def test_a_boundary_inside_a_token_is_scored_as_lm_evaluation_harness_does(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    query = ScoringQuery(id="q", prompt="The cap", candidates={"a": "ital of Peru"})
    context, whole = tokenizer.encode("The cap"), tokenizer.encode("The capital of Peru")
    assert whole[: len(context)] != context
    assert encoder.query(query).context == context
    assert encoder.query(query).candidates["a"] == whole[len(context) :]


def test_a_boundary_inside_a_token_is_not_trained_on(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="the boundary after"):
        encoder.example(TrainingExample(prompt="The cap", completion="ital"), "completion")


def test_of_too_long_a_text_prompt_the_last_tokens_are_kept(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    query = ScoringQuery(id="q9", prompt="word " * 300 + "A:", candidates={"a": " x", "b": " x y"})
    tokenized, again = encoder.query(query), encoder.query(query)
    assert tokenized == again
    assert tokenized.longest == 201
    assert tokenized.is_cut
    fitting = query.model_copy(update={"prompt": "word " * 20 + "A:"})
    assert not encoder.query(fitting).is_cut
    assert len(tokenized.context) > 200
    assert [record.getMessage()[:11] for record in caplog.records] == ["query 'q9':"]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"a": ""}, "candidate 'a': it is empty"),
        ({"a": "x", "b": "y", "c": "x"}, "candidates 'a' and 'c' have the same tokens"),
        ({"a": "word " * 300}, "longer than the model's context of 200"),
    ],
)
def test_candidates_that_cannot_be_scored_are_refused(
    encoder: Encoder, candidates: dict[str, str], message: str
) -> None:
    query = ScoringQuery(
        id="q", messages=(Message(role="user", content="Hi"),), candidates=candidates
    )
    with pytest.raises(DataError, match=message):
        encoder.query(query)


def test_a_candidate_may_be_the_beginning_of_another(encoder: Encoder) -> None:
    query = ScoringQuery(id="q", prompt="A:", candidates={"a": " Guinea", "b": " Guinea-Bissau"})
    tokens = encoder.query(query).candidates
    assert tokens["b"][: len(tokens["a"])] == tokens["a"]


def test_too_long_an_example_is_refused(encoder: Encoder) -> None:
    with pytest.raises(DataError, match=r"longer than the model's context of 200"):
        encoder.example(chat(("user", "word " * 300), ("assistant", "x")), "completion")


def test_a_template_that_rewrites_earlier_turns_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    # Some reasoning models' templates drop what the assistant thought in earlier turns.
    other = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    other.chat_template = (
        "{% for m in messages %}{% if not loop.last and m['role'] == 'assistant' %}[gone]"
        "{% else %}{{ m['role'] + ':' + m['content'] }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    turns = (("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"))
    with pytest.raises(DataError, match="rewrites earlier turns"):
        Encoder(other, 200).example(chat(*turns), "completion")


# Qwen3's habit: an empty thought before each learned answer, and before the next one when asked to.
_THINKING = (
    "{% for m in messages %}{{ m['role'] + ':' }}"
    "{% if m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:"
    "{% if CLOSED %}<think></think>{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    "closed", ["enable_thinking is defined and enable_thinking is false", "false"]
)
def test_what_is_learned_is_what_would_be_scored(closed: str) -> None:
    other = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    other.chat_template = _THINKING.replace("CLOSED", closed)
    turns = chat(("user", "a"), ("assistant", "one"))
    encoder = Encoder(other, 200)
    if closed == "false":
        with pytest.raises(DataError, match="writes something before the answer"):
            encoder.example(turns, "completion")
    else:
        assert learned(other, encoder.example(turns, "completion")) == "one"


def test_chats_need_a_chat_template() -> None:
    bare = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    bare.chat_template = None
    query = Query(id="q", messages=(Message(role="user", content="Hi"),))
    with pytest.raises(UnsupportedError, match="no chat template"):
        Encoder(bare, 200).render(query)


def test_a_prefill_is_the_end_of_the_context_and_its_edges_are_between_tokens(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    begun = GenerationQuery(
        id="q3", messages=(Message(role="user", content="Hi"),), prefill="Well,", max_tokens=2
    )
    assert tokenizer.decode(encoder.prompt(begun)) == encoder.render(begun)
    assert encoder.render(begun).endswith("<|im_start|>assistant\nWell,")
    with pytest.raises(DataError, match=r"query 'q3'.*the boundary after '.*assistant\\n'"):
        encoder.prompt(begun.model_copy(update={"prefill": "\n\nWell,"}))
    scored = ScoringQuery(
        id="q4", messages=begun.messages, prefill="The capit", candidates={"a": "al"}
    )
    with pytest.raises(DataError, match=r"query 'q4', candidate 'a': the boundary after"):
        encoder.query(scored)


def test_a_text_that_begins_with_the_beginning_of_text_gets_no_second_one(
    tiny_model_with_beginning: Path,
) -> None:
    # lm-evaluation-harness, has_bos_prefix
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_with_beginning)
    encoder, beginning = Encoder(tokenizer, 200), tokenizer.bos_token_id
    for prompt in ("One two", f"{tokenizer.bos_token}One two"):
        assert encoder.text(prompt) == [beginning, *tokenizer.encode("One two")[1:]]
        query = encoder.query(ScoringQuery(id="q", prompt=prompt, candidates={"a": " x"}))
        assert query.context.count(beginning) == 1
        example = encoder.example(TrainingExample(prompt=prompt, completion=" x"), "completion")
        assert example.tokens.count(beginning) == 1


def test_answer_tokens_are_those_after_the_assistants_header(
    encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert encoder.answer_tokens("South Korea") == tuple(tokenizer.encode("South Korea"))
