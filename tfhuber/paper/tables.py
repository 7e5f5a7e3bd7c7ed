"""The paper's tables as data: what each cell trains and measures, and what was published there.

A cell belongs to a variant of its data set's base configuration (`configs/wflw.json`, ...); a variant
lists only what differs. Cells of several tables share variants, and so share runs.
"""

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["BASES", "TABLES", "Base", "Cell", "Table", "Variant"]

Number = tuple[float, float | None]  # mean, standard deviation over seeds


@dataclass(frozen=True)
class Base:
    """A data set with its base configuration `configs/NAME.json`; examples as published."""

    name: str
    train_examples: int


BASES = {
    "wflw": Base("wflw", 7_500),
    "mpii": Base("mpii", 22_246),
    "300w_lp": Base("300w_lp", 61_225),
}


@dataclass(frozen=True)
class Variant:
    """A configuration: its name, its base, what it changes, and the variant it is pretrained as."""

    name: str
    base: str = "wflw"
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    pretraining: "Variant | None" = None


@dataclass(frozen=True)
class Cell:
    """One place of a table: which variant's which metric, with which test-time augmentation."""

    row: str
    column: str
    variant: Variant
    metric: str
    tta: str = "none"
    published: Number | None = None


@dataclass(frozen=True)
class Table:
    """A table: its cells in reading order.

    Attributes:
      title: what it shows.
      cells: the cells.
      note: how the published values were measured where that differs from here, or what to look for.
      increase: two of its columns whose difference, second minus first, is shown as well.
    """

    title: str
    cells: tuple[Cell, ...]
    note: str = ""
    increase: tuple[str, str] | None = None

    @property
    def variants(self) -> list[Variant]:
        """The variants in order of appearance, those they are pretrained as before them."""
        found: dict[str, Variant] = {}
        for cell in self.cells:
            if cell.variant.pretraining is not None:
                found.setdefault(cell.variant.pretraining.name, cell.variant.pretraining)
            found.setdefault(cell.variant.name, cell.variant)
        return list(found.values())


LONG = {
    "train.epochs": 200,
    "train.learning_rate": [[0, 1e-3], [150, 1e-3], [175, 1e-4], [200, 1e-5]],
}
SCRATCH = {"model.pretrained": None, "train.frozen_epochs": 0}

FAMILIES = ("huber", "gauss", "laplace", "charbonnier")
COVARIANCES = ("identity", "diagonal", "full")


def _loss_variant(family: str, covariance: str, base: str = "wflw") -> Variant:
    changes = {"model.family": family, "model.covariance": covariance}
    return Variant(f"{base}-{family}-{covariance}", base, changes)


MAIN = _loss_variant("huber", "full")
MAIN_LONG = replace(MAIN, name="wflw-200epochs", changes=LONG)
FACES_FIRST = Variant(
    "wflw-from-300w_lp-200epochs",
    changes={**LONG, "model.pretrained": None},
    pretraining=Variant("300w_lp", "300w_lp"),
)
MPII_MAIN = _loss_variant("huber", "full", "mpii")
MPII_LONG = replace(MPII_MAIN, name="mpii-200epochs", changes=LONG)

_MPII_NOTE = (
    "Published: all annotated people for training, MPII's own server for scoring; here: Tompson's "
    "split, whose 2,958 people have published labels."
)
_LOSS_NOTE = "NLL is the training loss (eq. 6), without a normalising constant."


def _losses(metric: str, base: str, covariances: tuple[str, ...], published: list) -> tuple:
    """Rows of families and columns of covariances: tables 2 to 4."""
    return tuple(
        Cell(
            family.capitalize(),
            covariance.capitalize(),
            _loss_variant(family, covariance, base),
            metric,
            published=numbers[column],
        )
        for family, numbers in zip(FAMILIES, published, strict=True)
        for column, covariance in enumerate(covariances)
    )


def _nme_and_loss(rows: list) -> tuple:
    """Rows of (label, variant, published NME, published loss): tables 5, 7, 9 and 10."""
    return tuple(
        Cell(label, column, variant, metric, published=number)
        for label, variant, nme, loss in rows
        for column, metric, number in (("NME", "nme", nme), ("NLL", "loss", loss))
    )


def _backbone(depth: int) -> Variant:
    changes = {
        "model.backbone": f"resnet{depth}",
        "model.pretrained": f"resnet_{depth}_imagenet",
    }
    return Variant(f"wflw-resnet{depth}", changes=changes)


def _robustness() -> tuple:
    cells = []
    for family in FAMILIES:
        clean = _loss_variant(family, "full")
        wrong = replace(
            clean,
            name=f"{clean.name}-wrong-labels",
            changes={**clean.changes, "data.wrong_labels": 0.1},
        )
        for column, variant in (("Clean", clean), ("10 % wrong", wrong)):
            cells.append(Cell(family.capitalize(), column, variant, "nme"))
    return tuple(cells)


_AVERAGE = Variant("wflw-average-pooling", changes={"model.pooling": "average"})
_FROM_SCRATCH = Variant("wflw-from-scratch", changes=SCRATCH)
_MU = Variant("wflw-mu", changes={"model.parameterization": "mu"})
_MAIN_NUMBERS = (4.91, 0.04), (-355.8, 0.79)

TABLES = {
    "table1": Table(
        "Best results on WFLW (NME) and MPII (PCKh@0.5)",
        (
            Cell("WFLW", "NME", MAIN_LONG, "nme", "ml", (4.62, 0.04)),
            Cell("MPII", "PCKh@0.5", MPII_LONG, "pckh_0.5", "ml", (85.4, None)),
        ),
        "Image and mirror image, fused by maximum likelihood. " + _MPII_NOTE,
    ),
    "table2": Table(
        "WFLW, NME by distribution and covariance",
        _losses(
            "nme",
            "wflw",
            COVARIANCES,
            [
                [(5.52, 0.02), (4.91, 0.03), (4.91, 0.04)],
                [(6.04, 0.10), (5.65, 0.06), (5.40, 0.17)],
                [(5.16, 0.03), (4.90, 0.07), (4.89, 0.02)],
                [(5.64, 0.03), (4.95, 0.02), (4.96, 0.02)],
            ],
        ),
    ),
    "table3": Table(
        "WFLW, NLL by distribution and covariance",
        _losses(
            "nll_relative",
            "wflw",
            COVARIANCES[1:],
            [
                [(-307.0, 1.3), (-310.0, 1.4)],
                [(-274.0, 2.1), (-279.3, 5.6)],
                [(-306.6, 2.8), (-309.9, 1.2)],
                [(-305.9, 1.1), (-308.9, 0.8)],
            ],
        ),
        "NLL with its normalising constant measured against the Gaussian's (`nll_relative`).",
    ),
    "table4": Table(
        "MPII, PCKh@0.5 by distribution and covariance",
        _losses(
            "pckh_0.5",
            "mpii",
            COVARIANCES,
            [
                [(81.9, 0.1), (85.1, 0.1), (85.0, 0.1)],
                [(77.0, 0.1), (81.3, 0.6), (81.2, 0.5)],
                [(82.8, 0.1), (85.0, 0.1), (85.0, 0.1)],
                [(80.2, 0.1), (84.7, 0.1), (84.7, 0.1)],
            ],
        ),
        _MPII_NOTE,
    ),
    "table5": Table(
        "WFLW, what the network is pretrained on",
        _nme_and_loss(
            [
                ("300W-LP, 200 epochs", FACES_FIRST, (4.70, 0.03), (-344.6, 1.60)),
                ("ImageNet, 200 epochs", MAIN_LONG, (4.76, 0.06), (-355.4, 3.30)),
                ("ImageNet, 50 epochs", MAIN, *_MAIN_NUMBERS),
                ("none, 50 epochs", _FROM_SCRATCH, (5.31, 0.04), (-342.2, 1.20)),
            ]
        ),
        _LOSS_NOTE,
    ),
    "table6": Table(
        "WFLW, test-time augmentation, NME",
        (
            Cell("300W-LP", "With", FACES_FIRST, "nme", "ml", (4.58, 0.02)),
            Cell("300W-LP", "Without", FACES_FIRST, "nme", "none", (4.70, 0.03)),
            Cell("ImageNet", "With", MAIN_LONG, "nme", "ml", (4.62, 0.04)),
            Cell("ImageNet", "Without", MAIN_LONG, "nme", "none", (4.76, 0.06)),
        ),
    ),
    "table7": Table(
        "WFLW, length of training",
        _nme_and_loss(
            [
                ("200 epochs", MAIN_LONG, (4.76, 0.06), (-355.4, 3.30)),
                ("50 epochs", MAIN, *_MAIN_NUMBERS),
            ]
        ),
        _LOSS_NOTE,
    ),
    "table8": Table(
        "MPII, how image and mirror image are fused, PCKh@0.5",
        (
            Cell("probabilistic", "PCKh@0.5", MPII_MAIN, "pckh_0.5", "ml", (85.0, 0.1)),
            Cell("mean", "PCKh@0.5", MPII_MAIN, "pckh_0.5", "mean", (84.8, 0.1)),
        ),
        _MPII_NOTE,
    ),
    "table9": Table(
        "WFLW, backbones",
        _nme_and_loss(
            [
                ("ResNet-101", MAIN, *_MAIN_NUMBERS),
                ("ResNet-50", _backbone(50), (4.89, 0.02), (-357.2, 0.47)),
                ("ResNet-18", _backbone(18), (5.01, 0.02), (-351.0, 0.75)),
            ]
        ),
        _LOSS_NOTE,
    ),
    "table10": Table(
        "WFLW, from the feature map to a vector",
        _nme_and_loss(
            [
                ("channel-wise convolution", MAIN, *_MAIN_NUMBERS),
                ("average pooling", _AVERAGE, (5.25, 0.02), (-336.5, 0.40)),
            ]
        ),
        _LOSS_NOTE,
    ),
    "parameterization": Table(
        "WFLW, predicting nu = A mu or mu itself",
        _nme_and_loss([("nu", MAIN, *_MAIN_NUMBERS), ("mu", _MU, None, None)]),
        "The paper says that both perform alike, without numbers. " + _LOSS_NOTE,
    ),
    "robustness": Table(
        "WFLW, NME when 10 % of the training labels are wrong",
        _robustness(),
        "Not in the paper: each training landmark is, with probability 0.1, somewhere else in the crop.",
        increase=("Clean", "10 % wrong"),
    ),
}
