"""Kind `soup`: averages of submissions that stand on one seed.

Uses what kind `sft` leaves as continuation; trains nothing.
"""
