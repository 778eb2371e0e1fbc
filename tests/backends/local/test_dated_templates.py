from datetime import date, datetime

import pytest
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from backends.data import Message, Query
from backends.local.dated_templates import of_day
from backends.local.encoding import Encoder
from backends.local.models import locate
from tests.models import EMBEDDED

DAY = date(2024, 2, 5)
_TEMPLATES = (
    "{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}{{ messages[0].content }}",
    # Llama 3.2's way
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{% else %}{%- set date_string = '26 Jul 2024' %}"
    "{% endif %}{% endif %}{{ date_string }}",
    # gpt-oss', inside a macro of its own
    "{%- macro system() %}{{ 'Current date: ' + strftime_now('%Y-%m-%d') }}{% endmacro %}{{ system() }}",
    "\n\n  {{ strftime_now('%-d|%A, %B %e|%H:%M|100%%|%%d|%j|%F')|upper }} .",
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate(EMBEDDED))


@pytest.mark.parametrize("template", _TEMPLATES)
def test_a_day_is_told_as_transformers_would_have_told_it_on_that_day(
    tokenizer: PreTrainedTokenizerBase, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rendered(template: str) -> str:
        turns = [{"role": "user", "content": "Hi"}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template))

    ours = rendered(of_day(template, DAY))

    class ThatDay(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.combine(DAY, datetime.min.time())

    monkeypatch.setattr(chat_template_utils, "datetime", ThatDay)
    assert ours == rendered(template)
    assert "2024" in ours


def test_a_template_without_a_date_stays_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    template = tokenizer.get_chat_template()
    assert of_day(template, DAY) is template
    assert not Encoder(tokenizer, 200, DAY).is_dated


def test_an_encoder_renders_its_day() -> None:
    dated = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    dated.chat_template = _TEMPLATES[0]
    encoder = Encoder(dated, 200, DAY)
    assert encoder.is_dated
    query = Query(id="q", messages=(Message(role="user", content="Hi"),))
    assert encoder.render(query) == "Today: 05 Feb 2024\nHi"
