"""Generated calls as a caller of the API would write them.

Half of those that the document allows name a region, servers and a file that the test's topology has, so that not all
end in 404 or 422. JSON Schema takes 1.0 for an integer, the API does not, and its document says so: whole numbers lose their fraction.
"""

import schemathesis

KNOWN = {"source": "sun1-1-1", "server": "sun1-1-1", "file": "c1/a.jpg"}


def whole(value):
    """The same value without fractions that are zero."""
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**64 else value


@schemathesis.hook
def map_case(context, case):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if isinstance(case.body, (dict, list)):
        case.body = whole(case.body)
    # Waits are tested elsewhere.
    if isinstance((case.query or {}).get("wait_ms"), int):
        case.query["wait_ms"] = min(case.query["wait_ms"], 20)
    # Every other case, by what it holds: the same ones in every run.
    if len(repr((case.body, case.query))) % 2:
        return case
    if "region" in case.path_parameters:
        case.path_parameters["region"] = 1
    if "cache" in case.path_parameters:
        case.path_parameters["cache"] = "cache1-1"
    if isinstance(case.body, dict):
        case.body.update({key: name for key, name in KNOWN.items() if key in case.body})
        for download in case.body.get("downloads") or []:
            download["region"] = 1
    return case
