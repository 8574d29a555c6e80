"""How values from outside are refused."""


def require(
    is_right: bool,
    field: str,
    rule: object,
    value: object,
    *,
    error: type[ValueError] = ValueError,
    most: int | None = None,
) -> None:
    """Raise `error` naming the field, the rule and the value unless `is_right`.

    Of a value from a file, which may be anything, `most` characters are shown.
    """
    if not is_right:
        raise error(f"{field} must be {rule}; got {str(value)[:most]}")
