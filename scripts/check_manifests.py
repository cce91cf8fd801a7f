"""Renders every overlay of deploy/kubernetes and validates each object against a schema, without a cluster.

Usage: python scripts/check_manifests.py KUBECTL

Kubernetes' own kinds go by the schemas of kubernetes-validate (unknown fields are errors; it names the first error
of an object only); the others by those in deploy/kubernetes/schemas. A kind without a schema is an error.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = Path(__file__).parents[1] / "deploy/kubernetes"
#: The newest version that kubernetes-validate has schemas of.
VERSION = kubernetes_validate.latest_version()


def rendered(kubectl: str, overlay: Path) -> list[dict[str, Any]]:
    """The objects of an overlay."""
    command = [kubectl, "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # from the Makefile
    if done.returncode:
        raise SystemExit(f"{overlay}: {done.stderr}")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def schema_of(manifest: dict[str, Any]) -> Path:
    name = f"{manifest['kind'].lower()}-{manifest['apiVersion'].replace('/', '-')}.json"
    return KUBERNETES / "schemas" / name


def fault(manifest: dict[str, Any]) -> str | None:
    """What is wrong with an object, or None."""
    if (schema := schema_of(manifest)).exists():
        validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
        found = [f"{'.'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(manifest)]
        return "; ".join(found) or None
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"no schema; put one at {schema_of(manifest)}"
    return None


def main() -> int:
    faults = 0
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        for manifest in rendered(sys.argv[1], overlay):
            if text := fault(manifest):
                print(
                    f"{overlay.name}: {manifest['kind']}/{manifest['metadata']['name']}: {text}",
                    file=sys.stderr,
                )
                faults += 1
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
