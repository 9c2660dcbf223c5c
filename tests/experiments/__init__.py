"""`make experiment`: tournaments beside what else one might do with the same number of training tokens.

    sizes      what is run: data, base, budget, seeds, arms           recipes   the field, the grid, the space
    cells      one data set and seed, made ready: rows, base, judge   counting  tokens and padding, as they pass
    single     one recipe, trained and scored                         arms      one function per arm
    trials     the arms that Ray Tune runs                            run       what is not done yet
    table      docs/experiments.md                                    picture   the README's picture
    results    what is done, here and on record                       wall      time on four workers, from the batches

Every arm trains through the project's own code and is scored by the project's evaluator on the same rows.
"""
