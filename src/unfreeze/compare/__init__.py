"""Which strategy is best on these data, honestly measured."""
