"""To JSON Schema 1.0 is an integer like 1. It cannot say that ids are written as integers, so they are written so here."""

import schemathesis


def as_written(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("object_ids"), list):
        return {**body, "object_ids": [as_written(value) for value in body["object_ids"]]}
    return body
