"""Commands killed at random moments and started again: do they end as if they had not been?"""
