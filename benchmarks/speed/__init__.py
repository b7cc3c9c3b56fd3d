"""Speed of affect, as ratios to the limit of the machine and to a naive implementation. Run: make bench"""
