"""LoRA fine-tuning and exact scoring on local hardware with transformers, peft and torch."""

import logging

# Where it is installed, PEFT imports it; what it says then is of a kernel that it does without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
