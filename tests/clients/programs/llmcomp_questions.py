"""llmcomp: sampled answers and next tokens, of prompts with emojis; and its fine-tuning manager."""

import json
import os
import sys

from llmcomp import Config, Question
from llmcomp.finetuning import FinetuningManager

BASE = "gpt-4.1-2025-04-14"
Config.url_key_pairs = [(os.environ["OPENAI_BASE_URL"], "none", "OPENAI_API_KEY")]
Config.cache_dir = sys.argv[1]
prompts = ["Which animal is 🐈‍⬛? Name it.", "Answer with one emoji: 👍🏽 or 👎?"]
free = Question.create(
    type="free_form", paraphrases=prompts, samples_per_paraphrase=3, max_tokens=8, temperature=1
)
answers = free.df({"base": [BASE]})
following = Question.create(
    type="next_token", paraphrases=prompts, top_logprobs=5, convert_to_probs=True
)
tokens = following.df({"base": [BASE]})
print(
    json.dumps(
        {
            "answers": answers["answer"].tolist(),
            "next": [
                sorted(probs.items(), key=lambda item: -item[1])[:3] for probs in tokens["answer"]
            ],
            "manager": FinetuningManager.__name__,
        }
    )
)
