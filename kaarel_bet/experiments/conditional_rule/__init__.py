"""The conditional-rule bet (https://github.com/mattmacdermott1/kaarel-bet).

Does a model that is fine-tuned on one branch of a conditional rule learn the rule, or only the branch?
"""
