def __getattr__(name: str):
    if name == "evaluate_pair":
        from pipeline.evaluation.pair import evaluate_pair

        return evaluate_pair
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
