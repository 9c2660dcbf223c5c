"""One round: entries and their deadlines, racing, the verdict, promotion.

Owns what is decided and done between two rounds. Knows nothing of what is shown, tracked or planned.
"""
