def __getattr__(name: str):
    if name == "evaluate_pair":
        from pipeline.evaluation.pair import evaluate_pair

        return evaluate_pair
    if name == "manifoldness":
        from pipeline.evaluation.manifold import manifoldness

        return manifoldness
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
