"""Kind `sft`: supervised fine-tuning with TRL on one worker or in a gang.

Owns the recipe, the data stream, the budget's meter, training and the continuation. Knows no other kind.
"""
