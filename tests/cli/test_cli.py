"""The command line, on folders of generated images: output files, messages and errors."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric import cli, losses, search, viz
from keras_metric.cli.messages import show
from keras_metric.cli.run_folder import locked
from keras_metric.models import EmbeddingModel
from keras_metric.models.model_card import model_card
from keras_metric.search.storage.index_card import index_card
from keras_metric_command import LOSSES

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("bar", "cross", "frame", "spot")
# These losses train on two views, two towers or graded scores instead of classes.
NOT_FROM_CLASSES = {
    *("BarlowTwinsLoss", "ClipLoss", "CosineRegressionLoss", "SigLipLoss", "SimSiamLoss"),
    *("MetricLoss", "StepReports", "VICRegLoss", "WeightedSum"),
}


def write_images(folder, per_class=6, size=24, seed=0):
    """Four shapes at random positions on noise, as PNG files by class."""
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            image = rng.integers(60, size=(size, size)).astype("uint8")
            top, left = rng.integers(size - 12, size=2)
            part = image[top : top + 12, left : left + 12]
            if name == "bar":
                part[5:7] = 255
            elif name == "cross":
                part[5:7] = part[:, 5:7] = 255
            elif name == "frame":
                part[:2] = part[-2:] = part[:, :2] = part[:, -2:] = 255
            else:
                part[3:9, 3:9] = 255
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


TITLES = []  # of the plots of neighbours


DAMAGE = ("2 of 26 images cannot be read", "cut.png", "text.jpg", "1 class folder", "void")


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A folder of images without classes."""
    folder = tmp_path_factory.mktemp("flat")
    for path in write_images(folder / "by_class").rglob("*.png"):
        path.rename(folder / f"{path.parent.name}_{path.name}")
    shutil.rmtree(folder / "by_class")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of images, and the run folder that `train` and `index` wrote."""
    root = tmp_path_factory.mktemp("cli")
    photos = write_images(root / "photos")
    options = ["--run", str(root / "run")]
    train = ["train", str(photos), "--epochs", "2", "--steps", "3", "--embedding-dim", "8"]
    plot = viz.plot_neighbors

    def recorded(*args, **kwargs):
        figure = plot(*args, **kwargs)
        TITLES.append(figure.get_suptitle())
        return figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viz, "plot_neighbors", recorded)
        assert cli.main(train + options) == 0
    assert cli.main(["index", str(photos), *options]) == 0
    return photos, options


def succeeds(capsys, *arguments):
    """Run a command and return its stdout and stderr."""
    capsys.readouterr()
    assert cli.main(list(map(str, arguments))) == 0
    return capsys.readouterr()


def fails(capsys, *arguments):
    """Run a command that fails with exit code 2 and return its one line on stderr."""
    assert cli.main(list(map(str, arguments))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.slow
def test_train_writes_an_encoder_its_card_and_logs(run):
    folder = Path(run[1][1])
    encoder = keras.saving.load_model(folder / "encoder.keras")
    assert encoder.predict(np.zeros((1, 24, 24, 1), "uint8"), verbose=0).shape == (1, 8)
    card = (folder / "model_card.md").read_text("utf-8")
    assert "Classes: bar, cross, frame, spot." in card
    for row in ("raw pixels", "untrained encoder", "trained encoder"):
        assert f"| {row} | " in card
    assert "24 x 24 pixels, grayscale" in card and "TripletLoss" in card
    assert (folder / "neighbors.png").stat().st_size
    assert list((folder / "logs").glob("events.out.tfevents.*"))
    held = json.loads((folder / "run.json").read_text("utf-8"))["held_out"]
    assert sorted(held.values()) == sorted(2 * CLASSES)


@pytest.mark.slow
def test_search_finds_the_image_itself_first(run, capsys):
    photos, options = run
    query = str(photos / "cross" / "3.png")
    matches = json.loads(succeeds(capsys, "search", query, "-k", 3, "--json", *options).out)[query]
    assert len(matches) == 3
    assert matches[0]["label"] == "cross" and matches[0]["id"] == query
    assert matches[0]["distance"] < 1e-6 < matches[1]["distance"]
    out = succeeds(capsys, "search", query, *options).out
    assert "0.0000  cross" in out and "cosine distance" in out
    assert matches[0]["metric"] == "cosine"


@pytest.mark.slow
def test_evaluate_compares_with_raw_pixels_and_the_untrained_encoder(run, capsys):
    photos, options = run
    held = succeeds(capsys, "evaluate", "--json", *options)
    numbers = json.loads(held.out)
    assert list(numbers) == ["raw pixels", "untrained encoder", "trained encoder"] and not held.err
    card = (Path(options[1]) / "model_card.md").read_text("utf-8")
    for row, found in numbers.items():
        assert f"| {row} | {found['recall_at_1']:.3f} |" in card
    output = succeeds(capsys, "evaluate", photos, *options)
    assert "16 of 24 images were trained on" in output.err
    assert "24 images of 4 classes" in output.out and "auc" in output.out
    assert "cosine distance" in output.out
    assert {found["metric"] for found in numbers.values()} == {"cosine"}


@pytest.mark.slow
def test_project_writes_the_plot_and_the_projector(run):
    photos, options = run
    assert cli.main(["project", str(photos), *options]) == 0
    assert (Path(options[1]) / "embeddings.png").stat().st_size
    assert "images" in (Path(options[1]) / "logs" / "projector_config.pbtxt").read_text()


@pytest.mark.slow
def test_every_plot_and_text_names_the_same_distance(run, capsys):
    """Cosine: computed here from the encoder's output, not by the package."""
    photos, options = run
    assert TITLES == ["below each neighbour: its cosine distance"]
    encoder = keras.saving.load_model(Path(options[1]) / "encoder.keras")
    paths = [photos / "bar" / "0.png", photos / "spot" / "1.png"]
    pixels = np.stack([np.asarray(Image.open(path))[..., None] for path in paths])
    a, b = encoder.predict(pixels, verbose=0).astype("float64")
    expected = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    out = succeeds(capsys, "search", paths[0], "-k", 24, "--json", *options).out
    found = {match["id"]: match["distance"] for match in json.loads(out)[str(paths[0])]}
    np.testing.assert_allclose(found[str(paths[1])], expected, rtol=1e-4)
    assert "| compared by | cosine distance |" in (Path(options[1]) / "model_card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "index", "project", "train"])
def test_one_run_names_all_broken_files(run, tmp_path, capsys, command):
    options = ["--run", str(tmp_path / "run")]
    shutil.copytree(run[1][1], tmp_path / "run")
    photos = write_images(tmp_path / "photos", seed=1)
    (photos / "void").mkdir()
    (photos / "bar" / "cut.png").write_bytes((photos / "bar" / "1.png").read_bytes()[:99])
    (photos / "spot" / "text.jpg").write_text("no image")
    if command == "train":
        options += ["--epochs", "1", "--steps", "1", "--overwrite"]
    line = fails(capsys, command, photos, *options)
    assert all(part in line for part in DAMAGE) and "--skip-broken" in line
    assert "`" not in line and "on_error" not in line
    output = succeeds(capsys, command, photos, *options, "--skip-broken")
    notes = [line for line in output.err.splitlines() if "note" in line]
    assert len(notes) == 1 and all(part in notes[0] for part in DAMAGE)
    if command != "project":
        assert "24 images of 4 classes" in output.out


@pytest.mark.slow
def test_notes_of_train_name_options(tmp_path, capsys):
    photos = write_images(tmp_path / "photos", per_class=4)
    short = ["--epochs", "1", "--steps", "1", "--run", str(tmp_path / "run"), "--overwrite"]
    for options, part in (
        (["--samples-per-class", "1", "--loss", "ProxyNCALoss"], "--samples-per-class 1"),
        (["--augment", "none"], "4 of 4 classes have fewer training images"),
    ):
        output = succeeds(capsys, "train", photos, *short, *options)
        (line,) = [line for line in output.err.splitlines() if "note" in line]
        assert part in line and "`" not in line and "samples_per_class" not in line


@pytest.mark.slow
def test_search_omits_broken_images(run, tmp_path, capsys):
    photos, options = run
    good, bad = photos / "bar" / "1.png", tmp_path / "bad.png"
    bad.write_bytes(b"")
    line = fails(capsys, "search", good, bad, *options)
    assert "1 of 2 images" in line and "bad.png" in line and "--skip-broken" in line
    gone = tmp_path / "gone.png"
    assert "gone.png" in fails(capsys, "search", good, gone, *options)
    output = succeeds(capsys, "search", bad, good, gone, "--skip-broken", *options)
    assert str(good) in output.out and "2 of 3 images" in output.err
    assert "--skip-broken" not in fails(capsys, "search", bad, "--skip-broken", *options)


@pytest.mark.slow
def test_a_folder_without_classes(run, flat, tmp_path, capsys):
    shutil.copytree(run[1][1], tmp_path / "run")
    options = ["--run", str(tmp_path / "run")]
    assert "24 images without classes" in succeeds(capsys, "index", flat, *options).out
    query, figure = str(flat / "cross_3.png"), tmp_path / "found.png"
    output = succeeds(capsys, "search", query, "-k", 3, "--picture", figure, *options)
    assert "0.0000  cross_3.png  " in output.out and figure.stat().st_size
    output = succeeds(capsys, "search", query, "--json", *options)
    assert json.loads(output.out)[query][0]["label"] is None
    succeeds(capsys, "project", flat, *options)
    assert (tmp_path / "run" / "embeddings.png").stat().st_size
    table = (tmp_path / "run" / "logs" / "images_metadata.tsv").read_text().splitlines()
    assert sorted(table) == sorted(path.name for path in flat.iterdir())
    for command in ("train", "evaluate"):
        line = fails(capsys, command, flat, *options, *["--overwrite"] * (command == "train"))
        assert f"{command} needs one folder of images for each class" in line
        assert "index, search and project" in line


@pytest.mark.slow
def test_images_next_to_class_folders_are_counted(run, tmp_path, capsys):
    photos = write_images(tmp_path / "photos")
    shutil.copy(photos / "bar" / "1.png", photos / "loose.png")
    assert "1 images directly in" in succeeds(capsys, "evaluate", photos, *run[1]).err


class TestErrors:
    def test_of_folders(self, capsys, tmp_path):
        assert "one folder of images for each class" in fails(capsys, "train", tmp_path)
        photos = write_images(tmp_path / "few", per_class=1)
        assert "four images" in fails(capsys, "train", photos)
        (photos / "bar" / "broken.png").write_text("no image")
        assert "broken.png" in fails(capsys, "train", photos, "--split", "classes")

    @pytest.mark.slow
    def test_of_the_order(self, capsys, run, tmp_path):
        photos, options = run
        assert "train FOLDER first" in fails(capsys, "index", photos, "--run", tmp_path)
        assert "--overwrite" in fails(capsys, "train", photos, *options)
        assert "no.png" in fails(capsys, "search", tmp_path / "no.png", *options)

    @pytest.mark.slow
    def test_of_an_index_that_is_older_than_the_encoder(self, capsys, run, tmp_path):
        photos, options = run
        shutil.copytree(options[1], tmp_path / "run")
        mine = ["--run", str(tmp_path / "run")]
        encoder = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
        encoder.head.linear.bias.assign_add(np.ones(8, "float32"))
        encoder.save(tmp_path / "run" / "encoder.keras")
        assert "index FOLDER again" in fails(capsys, "search", photos / "bar" / "1.png", *mine)
        settings = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
        settings["held_out"] = {}
        (tmp_path / "run" / "run.json").write_text(json.dumps(settings), "utf-8")
        assert "pass a FOLDER" in fails(capsys, "evaluate", *mine)
        shutil.copytree(photos / "bar", tmp_path / "one" / "bar")
        assert "two classes" in fails(capsys, "evaluate", tmp_path / "one", *mine)

    @pytest.mark.slow
    def test_of_damaged_runs(self, capsys, run, tmp_path):
        photos, options = run
        mine = ["--run", str(tmp_path / "run")]
        query = ["search", photos / "bar" / "1.png", *mine]
        shutil.copytree(options[1], tmp_path / "run")
        (tmp_path / "run" / "index" / "manifest.json").unlink()
        assert "index FOLDER again" in fails(capsys, *query)
        shutil.rmtree(tmp_path / "run" / "index")
        encoder = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
        search.Index(encoder=encoder).save(tmp_path / "run" / "index")
        assert "is empty: run keras-metric index" in fails(capsys, *query)
        settings = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
        # 30 pixels give as many features as 24, and the network itself would take them.
        (tmp_path / "run" / "run.json").write_text(json.dumps({**settings, "image_size": 30}))
        assert "does not match its run.json" in fails(capsys, "evaluate", *mine)
        (tmp_path / "run" / "encoder.keras").write_bytes(b"")
        assert "no valid .keras file" in fails(capsys, "evaluate", *mine)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("default")
    def test_of_training_that_cannot_work(self, capsys, tmp_path):
        photos, folder = write_images(tmp_path / "photos", per_class=4), tmp_path / "run"
        short = ["--epochs", "1", "--steps", "1", "--run", folder]
        backbone = keras.Sequential([keras.layers.Input((32, 32, 3)), keras.layers.Flatten()])
        backbone.save(tmp_path / "b.keras")
        line = fails(capsys, "train", photos, *short, "--backbone", tmp_path / "b.keras")
        assert "--image-size 24 --color grayscale" in line and "(None, 32, 32, 3)" in line
        for number in range(20):
            (tmp_path / "single" / str(number)).mkdir(parents=True)
            shutil.copy(photos / "bar" / "0.png", tmp_path / "single" / str(number))
        assert "two images or more" in fails(capsys, "train", tmp_path / "single", *short)
        assert not folder.exists()
        assert cli.main([*map(str, ("train", photos, *short, "--learning-rate", 1e30))]) == 2
        output = capsys.readouterr().err
        assert "Lower --learning-rate" in output and "retrieval_evaluator.py" not in output
        assert os.listdir(folder) == ["logs"]

    @pytest.mark.slow
    def test_of_two_trainings_in_one_folder(self, capsys, tmp_path):
        photos, short = (
            write_images(tmp_path / "photos", per_class=4),
            ["--epochs", "1", "--steps", "1"],
        )
        with locked(tmp_path / "run"):
            line = fails(capsys, "train", photos, *short, "--run", tmp_path / "run")
        assert "Another keras-metric train" in line
        assert not (tmp_path / "run").exists()

    def test_debug_shows_the_traceback(self, tmp_path):
        with pytest.raises(ValueError, match="must be a folder"):
            cli.main(["train", str(tmp_path / "nowhere"), "--debug"])

    def test_before_keras_is_imported(self, tmp_path):
        """`--help` and usage errors do not import Keras or the package, which takes seconds."""
        write_images(tmp_path / "photos", per_class=1)
        shutil.copytree(tmp_path / "photos" / "bar", tmp_path / "flat")
        (tmp_path / "run").mkdir()
        for name in ("encoder.keras", "run.json"):
            (tmp_path / "run" / name).touch()
        expected = {
            "": "COMMAND",
            "--help": "",
            "train --help": "",
            "train": "FOLDER",
            "tarin photos": "invalid choice",
            "train photos --eopchs 3": "--eopchs",
            "train photos --epochs 0": "at least 1",
            "train photos --weights imagenet": "--weights needs",
            "train photos --epochs none": "whole number",
            "train photos --loss Triplet": "--loss must be",
            "train photos --backbone ResNeXt": "--backbone must be",
            "train photos --backbone no.keras": "no such file",
            "train photos --backbone MobileNetV3Small --weights no.h5": "--weights must be",
            "train photos --run photos/bar/0.png": "--run must be a folder",
            "train photos --run run": "--overwrite",
            "train nowhere": "does not exist",
            "train photos/bar/0.png": "is a file",
            "index photos": "train FOLDER first",
            "evaluate": "train FOLDER first",
            "project nowhere --run run": "does not exist",
            "search photos/bar/0.png --run run": "index FOLDER first",
            "train flat": "train needs one folder of images for each class",
            "evaluate flat --run run": "evaluate needs one folder of images for each class",
        }
        script = (
            "import json, sys\n"
            "from keras_metric_command import main\n"
            f"codes = [main(line.split()) for line in {list(expected)}]\n"
            "heavy = {'keras', 'keras_metric', 'matplotlib', 'numpy', 'tensorflow', 'torch'}\n"
            "print('\\n' + json.dumps([codes, sorted(heavy & set(sys.modules))]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        codes, imported = json.loads(done.stdout.splitlines()[-1])
        assert not imported
        assert codes == [0 if "--help" in line else 2 for line in expected]
        messages = [part for line, part in expected.items() if "--help" not in line]
        lines = done.stderr.splitlines()
        assert len(lines) == len(messages)
        for line, part in zip(lines, messages):
            assert line.startswith("keras-metric") and part in line


@pytest.mark.slow
def test_a_run_inside_the_folder_is_not_a_class(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(write_images(tmp_path / "photos", per_class=4))
    # The largest seed; on torch the seeds of Keras layers are signed 32-bit integers.
    short = ["--epochs", "1", "--steps", "1", "--flip", "--seed", str(2**32 - 1)]
    succeeds(capsys, "train", ".", *short)
    assert Path("keras_metric_run", "neighbors.png").exists()
    succeeds(capsys, "train", ".", *short, "--overwrite")
    for command in ("index", "evaluate"):
        assert "16 images of 4 classes" in succeeds(capsys, command, ".").out
    for path in list(Path(".").glob("[bcfs]*/*.png")):
        path.rename(f"{path.parent.name}_{path.name}")
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    assert "16 images without classes" in succeeds(capsys, "index", ".").out


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    "redirected, code",
    [("<&- >&- 2>&-", 0), ("| true", 141), (">out.txt", 0)],
)
def test_closed_broken_and_ascii_streams(run, tmp_path, redirected, code):
    shutil.copytree(run[0] / "bar", tmp_path / "köln")
    line = f"{sys.executable} -m keras_metric_command search köln/1.png --picture p.png"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{line} --run '{run[1][1]}' {redirected}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    if code == 0:
        assert (tmp_path / "p.png").stat().st_size > 1000
    if "out.txt" in redirected:
        assert (tmp_path / "out.txt").read_text("ascii").startswith("k\\xf6ln/1.png\n")


def test_errors_without_stderr_and_beyond_limits(tmp_path, capsys):
    code = "import sys, keras_metric_command as c; sys.stderr = None; sys.exit(c.main(['x']))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 2
    for option in ("--steps", "--epochs", "--embedding-dim", "--image-size"):
        assert "at most 2147483647" in fails(capsys, "train", "x", option, 2**31)
    assert "in UTF-8" in fails(capsys, "train", write_images(tmp_path / "p", 1), "--run", "r\udcff")


def test_unexpected_errors_are_one_line_and_code_1(tmp_path, capsys, monkeypatch):
    def failing(chosen):
        raise RuntimeError("\x1b[1mout of\nmemory\x1b[0m")

    photos = write_images(tmp_path / "photos", per_class=1)
    monkeypatch.setattr("keras_metric.cli.train.train", failing)
    assert cli.main(["train", str(photos), "--run", str(tmp_path / "run")]) == 1
    output = capsys.readouterr().err
    assert output == "keras-metric: error: RuntimeError: out of memory (--debug shows where)\n"


def test_help_has_examples(capsys):
    for command in ("train", "evaluate", "index", "search", "project"):
        out = succeeds(capsys, command, "--help").out
        assert f"examples:\n  keras-metric {command}" in out
    assert "keras-metric index photos" in succeeds(capsys, "--help").out


@pytest.mark.slow
def test_the_process_writes_one_line_and_exits_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "keras_metric_command.py", "train", tmp_path / "nowhere"],
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and "must be a folder" in done.stderr


def test_losses_from_classes_are_offered():
    assert set(LOSSES) | NOT_FROM_CLASSES == set(losses.__all__)
    assert len(set(LOSSES)) == len(LOSSES) and not set(LOSSES) & NOT_FROM_CLASSES


def test_a_card_of_many_classes_stays_short():
    numbers = {"raw pixels": {"recall_at_1": 0.5}}
    card = model_card("Many", {}, [f"c{i}" for i in range(2000)], {}, numbers, ["Mind the gap."])
    assert "c29 and 1,970 more." in card and "c30" not in card
    assert "- Mind the gap." in card


def test_cards_show_names_as_they_are():
    """Names contain no markup, HTML, line break or table cell; file names need not be UTF-8."""
    special = "<img src=x>|[a](b)`c`\n# d\udce9"
    numbers = {special: {"recall_at_1": 0.5}}
    card = model_card(special, {special: special}, [special, special], {}, numbers)
    shown = r"\<img src=x\>\|\[a\](b)\`c\`\\n# d\\udce9"
    assert card.encode().decode().splitlines()[0] == f"# {shown}"
    assert card.count(shown) == 6 and "<img" not in card.replace(r"\<img", "")
    index = search.Index(2, description="one\ntwo \udce9")
    index.add([[0.0, 1.0]], ["a"], attributes=[{special: 1}])
    text = index_card(index, "today").encode().decode()
    assert f"| attributes | {shown} (number) |" in text and "one\ntwo \\udce9" in text


def test_output_has_no_control_codes_of_terminals(capsys):
    show("one \x1b[31m\ntwo \udce9")
    assert capsys.readouterr().out == "one \\x1b[31m\ntwo \\udce9\n"
    assert "\x1b" not in fails(capsys, "search", "\x1b[31m.png")


@pytest.mark.parametrize("command", ["index", "train"])
def test_models_with_code_in_them_are_refused(tmp_path, capsys, command):
    """Keras's safe mode also rejects code inside a model of this package."""
    backbone = keras.Sequential([keras.Input((24, 24, 1)), keras.layers.Lambda(lambda x: x)])
    backbone.add(keras.layers.Flatten())
    path = tmp_path / "run" / "encoder.keras"
    path.parent.mkdir()
    EmbeddingModel(backbone, embedding_dim=4).save(path)
    (tmp_path / "run" / "run.json").write_text("{}")
    photos = write_images(tmp_path / "photos")
    options = ("--run", tmp_path / "run")
    if command == "train":
        options = ("--run", tmp_path / "other", "--backbone", path)
    assert "Lambda" in fails(capsys, command, photos, *options)
