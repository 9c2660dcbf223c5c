"""Kind `search`: looks for good values of an sft recipe's keys on Ray Tune, and trains with them.

Built on kind `sft`; knows no other kind.
"""
