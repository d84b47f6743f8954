def everything() -> None:
    pass
