"""The same job elsewhere: on Beam's file systems, and with what its workers have."""

import itertools
import os
import re
import shlex
import subprocess
import sys
import tarfile
from importlib.metadata import packages_distributions, requires

import clock_keypoints
import pytest
import toy_filesystem
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.stager import Stager
from conversion import ROOT, arguments, contents, convert, photograph, run
from official_layouts import face, image, person, write_mpii, write_wflw
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pinned_packages import pinned_version, pins

from pipelines.make_tfrecords import main
from pipelines.options import parse_arguments
from pipelines.runners import LOCAL, make_pipeline
from pipelines.sample_data import write_sample_data
from tfhuber.data import records
from tfhuber.training.trainer import train

REASONS = {
    "../secret.jpg": "path_outside_source",
    "/etc/passwd": "path_outside_source",
    "absent.jpg": "missing_image",
    "text.jpg": "undecodable_image",
}


def hostile_faces(directory):
    """Six good faces, each but the last followed by one that cannot be used."""
    good = face("good.jpg")
    bad = [*map(face, REASONS), face("good.jpg", box=(40, 30, 40, 150))]
    write_wflw(directory, [line for fields in bad for line in (good, fields)] + [good], [good])
    photograph(directory / "WFLW_images/good.jpg")
    photograph(directory / "secret.jpg")
    (directory / "WFLW_images/text.jpg").write_text("not an image")
    return directory


# --- training on what the job API wrote


@pytest.mark.slow
def test_an_epoch_is_trained_on_what_the_job_api_wrote(
    faces, face_records, tiny_config, job_service, tmp_path
):
    options = ["--dataset", "wflw", "--source", str(faces), "--output", str(tmp_path / "records")]
    options += ["--size", "96", "--shard-examples", "16"]
    code, _, err = run(*options, *job_service)
    assert code == 0, err
    assert contents(tmp_path / "records") == contents(face_records)
    data = tiny_config.data.model_copy(update={"directory": str(tmp_path / "records")})
    epoch = tiny_config.train.model_copy(update={"epochs": 1})
    metrics = train(
        tiny_config.model_copy(update={"data": data, "train": epoch}), tmp_path / "run", quiet=True
    )
    assert 0 < metrics["nme"] < 30  # Percent; 17 images of 32 pixels.


# --- an object store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The toy object store; whoever takes its paths for local ones writes into an empty directory."""
    (tmp_path / "store").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "store"
    assert not any((tmp_path / "here").iterdir())


def fetched(url, folder):
    toy_filesystem.download(url, folder)
    return contents(folder)


def test_an_object_store_gives_and_takes_the_same_bytes(tmp_path, store):
    options = ["--shard-examples", "4"]
    hostile_faces(tmp_path / "source")
    _, rejects = convert(tmp_path / "source", tmp_path / "local", *options)
    assert [reject["reason"] for reject in rejects] == [*REASONS.values(), "empty_box"]
    toy_filesystem.upload(tmp_path / "source", "toy://bucket/sets/wflw")
    main(arguments("toy://bucket/sets/wflw", "toy://bucket/sets/out/", *options))
    assert fetched("toy://bucket/sets/out", tmp_path / "remote") == contents(tmp_path / "local")
    assert not [name for name in os.listdir(store) if "partial" in name]


def test_one_side_may_be_local(tmp_path, store):
    hostile_faces(tmp_path / "source")
    toy_filesystem.upload(tmp_path / "source", "toy://bucket/wflw")
    convert(tmp_path / "source", tmp_path / "both")
    main(arguments("toy://bucket/wflw", tmp_path / "to_disk"))
    main(arguments(tmp_path / "source", "toy://bucket/out"))
    assert contents(tmp_path / "to_disk") == contents(tmp_path / "both")
    assert fetched("toy://bucket/out", tmp_path / "fetched") == contents(tmp_path / "both")


def test_the_list_of_validation_images_may_be_remote(tmp_path, store):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    write_mpii(tmp_path / "source", *(image(person(), name=name) for name in names))
    for name in names:
        photograph(tmp_path / "source/images" / name)
    (tmp_path / "source/valid.txt").write_text("b.jpg\r\n")
    toy_filesystem.upload(tmp_path / "source", "toy://bucket/mpii")
    options = ["--validation-images", "toy://bucket/mpii/valid.txt"]
    main(arguments("toy://bucket/mpii", tmp_path / "out", *options, dataset="mpii"))
    splits = records.read_manifest(tmp_path / "out")["splits"]
    assert {name: split["examples"] for name, split in splits.items()} == {"train": 2, "valid": 1}


LAUNCHER = "import toy_filesystem; from pipelines.make_tfrecords import main; main()"


def test_a_job_service_and_an_object_store_go_together(tmp_path, store, job_service):
    hostile_faces(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "local", "--shard-examples", "4")
    toy_filesystem.upload(tmp_path / "source", "toy://bucket/wflw")
    options = ["--shard-examples", "4", *job_service]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers")])
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            LAUNCHER,
            *arguments("toy://bucket/wflw", "toy://bucket/out", *options),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert fetched("toy://bucket/out", tmp_path / "remote") == contents(tmp_path / "local")


def test_a_set_in_an_object_store_is_replaced_on_request_only(tmp_path, store):
    source = hostile_faces(tmp_path / "source")
    main(arguments(source, "toy://bucket/out"))
    before = fetched("toy://bucket/out", tmp_path / "before")
    command = arguments(source, "toy://bucket/out", "--shard-examples", "4")
    with pytest.raises(ValueError, match="already holds a converted data set; --overwrite"):
        main(command)
    assert fetched("toy://bucket/out", tmp_path / "between") == before
    main([*command, "--overwrite"])
    convert(source, tmp_path / "wanted", "--shard-examples", "4")
    assert fetched("toy://bucket/out", tmp_path / "after") == contents(tmp_path / "wanted")


def test_other_peoples_objects_are_never_replaced(tmp_path, store):
    source = hostile_faces(tmp_path / "source")
    toy_filesystem.upload(source, "toy://bucket/photographs")
    names = os.listdir(store)
    with pytest.raises(ValueError, match="does not hold a converted data set; choose another"):
        main(arguments(source, "toy://bucket/photographs", "--overwrite"))
    assert os.listdir(store) == names


def test_a_run_that_fails_in_an_object_store_is_finished_by_the_same_command(
    tmp_path, store, monkeypatch
):
    source = hostile_faces(tmp_path / "source")
    command = arguments(source, "toy://bucket/out", "--shard-examples", "4")

    def fail(*_):
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(records, "manifest_text", fail)
        with pytest.raises(OSError, match="the network is down") as error:
            main(command)
    assert "keeps what is done" in error.value.__notes__[0]

    def no_crop(*_, **__):
        raise AssertionError("a shard that was finished is made again")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.shards.store_crop", no_crop)
        main(command)
    convert(source, tmp_path / "wanted", "--shard-examples", "4")
    assert fetched("toy://bucket/out", tmp_path / "out") == contents(tmp_path / "wanted")


# --- how the package gets to the workers

DOCKERFILE = (ROOT / "pipelines/Dockerfile").read_text()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution that Beam makes for --setup_file, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"
    tree.mkdir()
    # Not in the repository, where the build leaves files behind.
    for path in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tree / path).symlink_to(ROOT / path)
    for package in ("tfhuber", "configs", "pipelines", "serving", "benchmarks"):
        (tree / package).symlink_to(ROOT / package)
    (folder / "staged").mkdir()
    artifacts = Stager.create_job_resources(
        PipelineOptions(["--setup_file", str(tree / "setup.py")]),
        str(folder / "staged"),
        log_submission_env_dependencies=False,
    )
    ((path, name, _),) = Stager.extract_staging_tuple_iter(artifacts)
    assert name == "workflow.tar.gz"
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("tfhuber-*")
    return unpacked


def test_the_source_distribution_holds_every_module(sdist):
    for package in ("tfhuber", "pipelines", "serving", "benchmarks"):
        modules = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
        assert modules == {path.relative_to(sdist) for path in (sdist / package).rglob("*.py")}


def test_the_job_can_be_imported_from_the_source_distribution_alone(sdist, tmp_path):
    script = "import pipelines.shards, sys; print(pipelines.shards.__file__, *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(sdist)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    file, *modules = result.stdout.split()
    assert file == str(sdist / "pipelines/shards.py")
    assert not {"tensorflow", "keras", "matplotlib"} & set(modules)


def test_a_worker_with_other_versions_is_turned_away(tmp_path, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr("pipelines.shards.versions", lambda: {"pillow": next(numbers)})
    source = hostile_faces(tmp_path / "source")
    with pytest.raises(
        OSError, match=r"^a worker has {'pillow': \d+}, and the launcher {'pillow': 0}$"
    ):
        main(arguments(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_workers_image_has_the_launchers_beam_and_python():
    python, beam = re.search(r"^FROM apache/beam_python(\S+)_sdk:(\S+)$", DOCKERFILE, re.M).groups()
    assert beam == pinned_version(pins()["apache-beam"])
    assert python in ("3.11", "3.12", "3.13")


WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in the container", name=name)

absent = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
from pipelines.make_tfrecords import main
for source in sys.argv[1:]:
    main(f"--dataset {source.rpartition('/')[2]} --source {source} --output {source}_out".split())
"""


def installed_by_the_image():
    """Names of the packages in a conversion worker's environment, of those that there are here."""
    listed = re.search(r"-c constraints.txt \\\n(.*?) \$\{EXTRA\} \\", DOCKERFILE, re.S).group(1)
    wanted = [Requirement(each) for each in ["apache-beam", *shlex.split(listed)]]
    found = set()
    while wanted:
        requirement = wanted.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras or {""}
        if name not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or [])
            wanted += [
                each
                for each in needed
                if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
            ]
    return found


def test_the_job_runs_with_what_the_workers_image_has(tmp_path):
    """All data sets are converted in a process that can import nothing else."""
    present = {*installed_by_the_image(), "tfhuber"}
    absent = {
        module
        for module, packages in packages_distributions().items()
        if not present & {canonicalize_name(package) for package in packages}
    }
    assert absent >= {"tensorflow", "keras", "matplotlib", "httpx"}
    for dataset in ("wflw", "mpii", "300w_lp"):
        write_sample_data(dataset, tmp_path / dataset, train=2, test=1, processes=1)
    clock_keypoints.write(
        tmp_path / "coco",
        train=clock_keypoints.document(clock_keypoints.clock(), clock_keypoints.clock(2)),
    )
    photograph(tmp_path / "coco/images/a.jpg")
    sources = [str(path) for path in tmp_path.iterdir()]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(absent), *sources],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for source in sources:
        splits = records.read_manifest(f"{source}_out")["splits"]
        assert sum(split["examples"] for split in splits.values()) > 1


# --- the documentation


def commands(page):
    """The commands of a page's indented blocks."""
    blocks = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [shlex.split(line, comments=True) for line in lines]


def test_every_option_in_the_documentation_is_one():
    found = [
        command[3:]
        for command in commands((ROOT / "docs/beam.md").read_text())
        if command[:3] == ["python", "-m", "pipelines.make_tfrecords"]
    ]
    assert len(found) >= 5
    for command in found:
        make_pipeline(LOCAL, parse_arguments(command)[1])
