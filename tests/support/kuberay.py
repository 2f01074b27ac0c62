"""What KubeRay's operator accepts: the schemas of its custom resources, without the schemas of pods within them.

Those are Kubernetes' own, which the tests apply by themselves, and are most of the megabytes that KubeRay publishes
under the licence Apache-2.0. ``python -m support.kuberay FOLDER`` in ``tests`` renews the files from its folder
``config/crd/bases``.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(__file__).with_name("kuberay-1.6.2")
KINDS = ("RayJob", "RayService")
_KEPT = ("type", "enum", "required", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems")


def validate(made: dict[str, Any]) -> None:
    """Refuse an object that KubeRay would refuse, or of which it would drop a field.

    Raises:
        jsonschema.ValidationError: With the path of the field.
    """
    assert made["apiVersion"] == "ray.io/v1"
    jsonschema.validate(made, _schema(made["kind"]), jsonschema.Draft202012Validator)


@cache
def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    return schema


def pruned(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI as one of JSON Schema that knows every field, with any object for a pod."""
    properties = schema.get("properties", {})
    if "containers" in properties.get("spec", {}).get("properties", {}):
        return {"type": "object"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "items" in schema:
        made["items"] = pruned(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = pruned(schema["additionalProperties"])
    if properties:
        made["properties"] = {name: pruned(each) for name, each in properties.items()}
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return made


def _renew(published: Path) -> None:
    SCHEMAS.mkdir(exist_ok=True)
    for kind in KINDS:
        text = (published / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
        (version,) = (each for each in yaml.safe_load(text)["spec"]["versions"] if each["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        del schema["properties"]["status"]
        (SCHEMAS / f"{kind}.json").write_text(json.dumps(pruned(schema), sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _renew(Path(sys.argv[1]))
