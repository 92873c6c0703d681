"""The record of a run as an RO-Crate: what was run on what, with which settings, and what came out.

Profile: Provenance Run Crate 0.5 of Workflow Run RO-Crate (https://w3id.org/ro/wfrun/provenance/0.5), which rests on
RO-Crate 1.1. Aggregated: one action per stage, not per shape; the shapes stand in the ledgers, which are named by
digest as the results of their stage.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from pipeline.report.run_record import ActionRecord, FileRecord, RunRecord
from pipeline.report.text import printable, redacted
from pipeline.settings import as_json

CRATE_VERSION = "1.1"
PROFILE_VERSION = "0.5"
PROFILES = {
    f"https://w3id.org/ro/wfrun/process/{PROFILE_VERSION}": ("Process Run Crate", PROFILE_VERSION),
    f"https://w3id.org/ro/wfrun/workflow/{PROFILE_VERSION}": ("Workflow Run Crate", PROFILE_VERSION),
    f"https://w3id.org/ro/wfrun/provenance/{PROFILE_VERSION}": ("Provenance Run Crate", PROFILE_VERSION),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
CHECKSUM_TERMS = ("md5", "sha1", "sha256", "sha512")
STATUS = {"completed": "CompletedActionStatus", "failed": "FailedActionStatus"}
WORKFLOW_TYPES = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
QUANTITIES = {
    "seconds": ("https://qudt.org/vocab/quantitykind/Time", "https://qudt.org/vocab/unit/SEC"),
    "peak_mb": ("https://qudt.org/vocab/quantitykind/StorageCapacity", "https://qudt.org/vocab/unit/MegaBYTE"),
}
SLOTS = {
    "configuration": ("File", "Settings of the study"),
    "archives": ("File", "Where the raw shapes come from"),
    "seed": ("Integer", "Root of all random streams"),
    "results": ("File", "Tables, report and ledgers"),
}


def build_crate(run: RunRecord) -> bytes:
    """The content of `ro-crate-metadata.json`, to be written into the crate's folder; equal records give equal bytes.

    Raises ValueError for a file that lies outside the crate and has neither a web address nor a digest.
    """
    from rocrate.rocrate import ROCrate

    crate = ROCrate(gen_preview=False, version=CRATE_VERSION)
    crate.metadata.extra_contexts.append(CONTEXT)
    _describe_root(crate, run)
    workflow = _add_workflow(crate, run)
    agents = [_add(crate, f"#agent-{i}", "Person", name=printable(name)) for i, name in enumerate(run["agents"], 1)]
    whole = _add_run(crate, run, workflow)
    controls = [_add_stage(crate, run, position) for position in range(len(run["actions"]))]
    for action in crate.get_by_type("CreateAction"):
        action["agent"] = agents
    crate.root_dataset["mentions"] = [whole, _add_engine_run(crate, run, whole, controls, agents)]
    metadata = as_json(crate.metadata.generate())
    return (json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _describe_root(crate: Any, run: RunRecord) -> None:
    root = crate.root_dataset
    root["name"] = printable(run["name"])
    root["description"] = printable(run["description"])
    root["datePublished"] = run["ended"]
    root["license"] = run["license"]
    root["conformsTo"] = [
        _add(crate, address, "CreativeWork", name=name, version=version)
        for address, (name, version) in PROFILES.items()
    ]


def _add_workflow(crate: Any, run: RunRecord) -> Any:
    """The workflow with its slots and the software it needs."""
    properties = {"@type": WORKFLOW_TYPES, **_file_properties(run["workflow"])}
    address = _outside_address(run["workflow"])
    place = {"source": address} if address else {"dest_path": run["workflow"]["path"]}
    workflow = crate.add_workflow(
        **place, main=True, lang="snakemake", lang_version=run["engine_version"], properties=properties
    )
    workflow["name"] = printable(run["name"])
    workflow["version"] = run["version"]
    workflow["identifier"] = run["commit"]
    if "repository" in run:
        workflow["codeRepository"] = redacted(run["repository"])
    workflow["softwareRequirements"] = [
        _add(crate, f"#software-{name}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in sorted(run["software"].items())
    ]
    for name, (kind, description) in SLOTS.items():
        slot = crate.add_formal_parameter(name, kind, f"#slot-{name}", description)
        workflow.append_to("output" if name == "results" else "input", slot)
    return workflow


def _add_run(crate: Any, run: RunRecord, workflow: Any) -> Any:
    """The action of the whole run: settings, archives and seeds in, results out."""
    inputs = [_add_config(crate, run["config"])]
    inputs += [_add_file(crate, record, "#slot-archives") for record in run["inputs"]]
    inputs += [
        _add(crate, f"#seed-{name}", "PropertyValue", name=name, value=value, exampleOfWork={"@id": "#slot-seed"})
        for name, value in sorted(run["seeds"].items())
    ]
    variables = [
        _add(crate, f"#variable-{name}", "PropertyValue", name=name, value=redacted(value))
        for name, value in sorted(run["environment"].items())
    ]
    return _add(
        crate,
        "#run",
        "CreateAction",
        name=f"Run of {printable(run['name'])}",
        instrument=workflow,
        object=inputs,
        result=[_add_file(crate, record, "#slot-results") for record in run["outputs"]],
        environment=variables,
        **_outcome(run),
    )


def _add_stage(crate: Any, run: RunRecord, position: int) -> Any:
    """A stage as tool, step and action; gives back the control action that ties the three together."""
    action = run["actions"][position]
    name = action["name"]
    words = {"name": name, "description": action.get("description", "")}
    tool = _add(crate, f"#tool-{name}", "SoftwareApplication", softwareVersion=run["version"], **words)
    step = _add(crate, f"#step-{name}", "HowToStep", name=name, position=str(position + 1), workExample=tool)
    crate.mainEntity.append_to("hasPart", tool)
    crate.mainEntity.append_to("step", step)
    done = _add(
        crate,
        f"#action-{name}",
        "CreateAction",
        instrument=tool,
        object=[_add_file(crate, record) for record in action["inputs"]],
        result=[_add_file(crate, record) for record in action["outputs"]],
        resourceUsage=_add_usage(crate, action),
        **words,
        **_outcome(action),
    )
    return _add(crate, f"#control-{name}", "ControlAction", name=f"orchestrate {name}", instrument=step, object=done)


def _add_usage(crate: Any, action: ActionRecord) -> list[Any]:
    return [
        _add(
            crate,
            f"#{key}-{action['name']}",
            "PropertyValue",
            name=key,
            value=str(action[key]),
            propertyID=quantity,
            unitCode=unit,
        )
        for key, (quantity, unit) in QUANTITIES.items()
        if key in action
    ]


def _add_engine_run(crate: Any, run: RunRecord, whole: Any, controls: list[Any], agents: list[Any]) -> Any:
    name, version = run["engine"], run["engine_version"]
    engine = _add(crate, "#engine", "SoftwareApplication", name=name, softwareVersion=version)
    return _add(
        crate,
        "#engine-run",
        "OrganizeAction",
        name=f"Run of {name} {version}",
        instrument=engine,
        object=controls,
        result=whole,
        agent=agents,
        **_outcome(run),
    )


def _outcome(record: RunRecord | ActionRecord) -> dict[str, Any]:
    status = STATUS[record.get("status", "completed")]
    return {
        "startTime": record["started"],
        "endTime": record["ended"],
        "actionStatus": {"@id": f"http://schema.org/{status}"},
    }


def _add_config(crate: Any, config: dict[str, str]) -> Any:
    content = config["text"].encode()
    record = FileRecord(
        path=config["path"],
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size=len(content),
        description="Settings of the study",
        media_type="application/yaml",
    )
    entity = _add_file(crate, record, "#slot-configuration")
    entity["text"] = redacted(config["text"])
    return entity


def _add_file(crate: Any, record: FileRecord, slot: str = "") -> Any:
    """A data entity; a file that several actions share is one entity."""
    from rocrate.model.data_entity import DataEntity
    from rocrate.model.file import File

    properties = {"@type": "File", **_file_properties(record)}
    if slot:
        properties["exampleOfWork"] = {"@id": slot}
    address = _outside_address(record)
    if address:
        return _once(crate, DataEntity(crate, address, properties))
    return _once(crate, File(crate, dest_path=record["path"], properties=properties))


def _file_properties(record: FileRecord) -> dict[str, str]:
    algorithm, _, value = record["digest"].partition(":")
    checksum = {algorithm: value} if algorithm in CHECKSUM_TERMS else {"identifier": record["digest"]}
    words = {"description": record.get("description", ""), "encodingFormat": record.get("media_type", "")}
    return {
        "name": printable(PurePosixPath(record["path"]).name),
        "contentSize": str(record["size"]),
        **checksum,
        **{term: word for term, word in words.items() if word},
    }


def _outside_address(record: FileRecord) -> str:
    """The identifier of a file outside the crate's folder; empty for one inside."""
    url = record.get("url", "")
    if urlsplit(url).scheme in ("http", "https"):
        return redacted(url)
    path = PurePosixPath(record["path"])
    if not path.is_absolute() and ".." not in path.parts:
        return ""
    if not record["digest"]:
        raise ValueError(f"{record['path']} lies outside the crate and has no digest that could name it")
    return f"urn:x-digest:{record['digest']}"


def _once(crate: Any, entity: Any) -> Any:
    return crate.get(entity.id) or crate.add(entity)


def _add(crate: Any, identifier: str, kind: str, **properties: Any) -> Any:
    """A contextual entity; empty properties are left out."""
    from rocrate.model.contextentity import ContextEntity

    kept = {key: value for key, value in properties.items() if value not in ("", [])}
    identifier = quote(identifier, safe="/:#?&=+@~")
    return _once(crate, ContextEntity(crate, identifier, properties={"@type": kind, **kept}))
