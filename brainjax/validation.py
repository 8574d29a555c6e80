"""How values from outside are refused."""


def require(is_right: bool, field: str, rule: object, value: object) -> None:
    """Raise ValueError naming the field, the rule and the value unless `is_right`."""
    if not is_right:
        raise ValueError(f"{field} must be {rule}; got {value}")
