import hashlib
import json

import pytest
from rocrate.rocrate import ROCrate

from pipeline.report.provenance import build_crate

STARTED, ENDED = "2026-11-20T10:00:00+00:00", "2026-11-20T11:00:00+00:00"
CONFIG = "dataset: demo\ntoken: hf_abcdefghijklmnopqrstuvwxyz\n"
SHA = "sha256:" + "0f" * 32


def ledger(stage):
    return {"path": f"ledgers/{stage}/chair 0.jsonl", "digest": "blake2b-160:" + "ab" * 20, "size": 100}


def action(name, inputs, outputs, **more):
    return {"name": name, "started": STARTED, "ended": ENDED, "inputs": inputs, "outputs": outputs, **more}


def run(**changes):
    record = {
        "name": "demo",
        "description": "The embedded demo.",
        "version": "0.1.0",
        "commit": "0123abcd",
        "license": "https://spdx.org/licenses/MIT",
        "workflow": {"path": "Snakefile", "digest": SHA, "size": 4},
        "engine": "Snakemake",
        "engine_version": "9.27.0",
        "started": STARTED,
        "ended": ENDED,
        "agents": ["A. Student"],
        "config": {"path": "config.yaml", "text": CONFIG},
        "seeds": {"root": 0},
        "software": {"numpy": "2.3.1", "torch": "2.13.0+cpu"},
        "environment": {"OMP_NUM_THREADS": "1"},
        "inputs": [{"path": "/elsewhere/03001627.zip", "digest": SHA, "size": 3}],
        "outputs": [{"path": "evaluation/rows.parquet", "digest": SHA, "size": 4}],
        "actions": [
            action("extract_meshes", [], [ledger("extract_meshes")], seconds=1.5, peak_mb=200),
            action("make_watertight", [ledger("extract_meshes")], [ledger("make_watertight")], status="failed"),
        ],
    }
    return {**record, **changes}


@pytest.fixture(scope="module")
def entities():
    crate = json.loads(build_crate(run()))
    ids = [entity["@id"] for entity in crate["@graph"]]
    assert len(ids) == len(set(ids))
    return {entity["@id"]: entity for entity in crate["@graph"]}


def of_type(entities, kind):
    return [e for e in entities.values() if kind in (e["@type"] if isinstance(e["@type"], list) else [e["@type"]])]


def references(value):
    if isinstance(value, dict):
        return [value["@id"]]
    return [r for v in value for r in references(v)] if isinstance(value, list) else []


def test_the_crate_names_its_profiles_and_their_versions(entities):
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in entities["ro-crate-metadata.json"]["conformsTo"]
    profiles = references(entities["./"]["conformsTo"])
    assert "https://w3id.org/ro/wfrun/provenance/0.5" in profiles
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in profiles
    assert all(entities[profile]["@type"] == "CreativeWork" for profile in profiles)


def test_the_context_knows_the_terms_of_workflow_runs():
    context = json.loads(build_crate(run()))["@context"]
    assert context == ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]


def test_actions_refer_to_entities_of_the_crate(entities):
    actions = [e for kind in ("CreateAction", "ControlAction", "OrganizeAction") for e in of_type(entities, kind)]
    assert len(actions) == 3 + 2 + 1
    for entity in actions:
        keys = set(entity) - {"@id", "@type", "actionStatus"}
        missing = [r for key in keys for r in references(entity[key]) if r not in entities]
        assert not missing, entity["@id"]


def test_no_reference_inside_the_crate_dangles(entities):
    local = [r for e in entities.values() for v in e.values() for r in references(v) if not r.startswith("http")]
    assert set(local) <= set(entities)


def test_each_stage_is_a_tool_a_step_and_an_action(entities):
    workflow = entities["Snakefile"]
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} <= set(workflow["@type"])
    assert references(workflow["hasPart"]) == ["#tool-extract_meshes", "#tool-make_watertight"]
    steps = [entities[step] for step in references(workflow["step"])]
    assert [step["position"] for step in steps] == ["1", "2"]
    assert [references(step["workExample"]) for step in steps] == [["#tool-extract_meshes"], ["#tool-make_watertight"]]
    control = entities["#control-make_watertight"]
    assert references(control["instrument"]) == ["#step-make_watertight"]
    assert entities[references(control["object"])[0]]["instrument"] == {"@id": "#tool-make_watertight"}


def test_a_ledger_is_one_entity_result_of_one_stage_and_object_of_the_next(entities):
    name = "ledgers/extract_meshes/chair%200.jsonl"
    assert references(entities["#action-extract_meshes"]["result"]) == [name]
    assert references(entities["#action-make_watertight"]["object"]) == [name]
    assert entities[name]["identifier"] == "blake2b-160:" + "ab" * 20
    assert {"@id": name} in entities["./"]["hasPart"]


def test_the_run_links_settings_archives_seeds_and_results(entities):
    whole = entities["#run"]
    assert references(whole["object"]) == ["config.yaml", f"urn:x-digest:{SHA}", "#seed-root"]
    assert references(whole["result"]) == ["evaluation/rows.parquet"]
    assert entities["#seed-root"]["value"] == 0
    assert entities["config.yaml"]["sha256"] == hashlib.sha256(CONFIG.encode()).hexdigest()
    assert (whole["startTime"], whole["endTime"]) == (STARTED, ENDED)
    assert entities["#software-torch"]["softwareVersion"] == "2.13.0+cpu"


def test_a_failed_stage_says_so(entities):
    assert entities["#action-make_watertight"]["actionStatus"] == {"@id": "http://schema.org/FailedActionStatus"}
    assert entities["#action-extract_meshes"]["actionStatus"] == {"@id": "http://schema.org/CompletedActionStatus"}


def test_resource_usage_names_quantity_and_unit(entities):
    usage = [entities[r] for r in references(entities["#action-extract_meshes"]["resourceUsage"])]
    assert [(u["name"], u["value"]) for u in usage] == [("seconds", "1.5"), ("peak_mb", "200")]
    assert all(u["propertyID"].startswith("https://") and u["unitCode"].startswith("https://") for u in usage)


def test_no_secret_and_no_folder_of_the_machine_is_recorded():
    text = build_crate(run()).decode()
    assert "hf_abc" not in text
    assert "/elsewhere" not in text


def test_equal_records_give_equal_bytes():
    assert build_crate(run()) == build_crate(run())


def test_a_file_elsewhere_needs_a_name_of_its_own():
    lost = {"path": "../x.zip", "digest": "", "size": 1}
    with pytest.raises(ValueError, match="no digest"):
        build_crate(run(inputs=[lost]))
    found = build_crate(run(inputs=[{**lost, "url": "https://example.org/x.zip"}]))
    assert '"@id": "https://example.org/x.zip"' in found.decode()


def test_the_library_reads_the_crate_back(tmp_path):
    (tmp_path / "ro-crate-metadata.json").write_bytes(build_crate(run()))
    crate = ROCrate(tmp_path)
    assert crate.mainEntity.id == "Snakefile"
    assert len(crate.get_by_type("CreateAction")) == 3
