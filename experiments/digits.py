"""Handwritten digits in one assembly area, learned by Hebbian plasticity alone.

Question:  how well do assemblies tell the ten digits apart, when each class is shown once, image
           by image, and nothing but co-firing changes synapses? No gradients; a label decides
           only which images follow each other.
Protocol:  ON and OFF neurons at several brightness thresholds fire into an area of n neurons; k
           win. Plastic and normalised synapses make winners prefer what they have seen. An
           inhibitory block fires along; its synapses onto winners grow in the same Hebbian way,
           so that a neuron that has won often makes room for others. After learning, plasticity
           and inhibition are off, each image gives one round of winners, and is read out by
           (a) the largest overlap with ten class assemblies, of the neurons that fire for training
               images of this class more often than for any other, and
           (b) a linear classifier (ridge regression on who wins), fitted to the training images.
           Brains differ in their synapses and share the split. Everything was tuned on a part of
           the training images.
Expected:  on this split, both readouts beat the same brains without learning, and the nearest
           class mean of the pixels. Both stay behind logistic regression on the pixels.
Source:    protocol after Dabagia, Papadimitriou & Vempala (2022), COLT, arXiv:2110.03171, who
           show MNIST digits class by class and subtract a bias from neurons that have an assembly
           (their notebook: n = 2,000, k = 200, p = .1, beta = 1, 5 images per class); images:
           Alpaydin & Kaynak (1998), UCI, bundled with scikit-learn.
Run:       python experiments/digits.py [--field value] [--smoke] [--json FILE] [--out DIR]
"""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from brainjax import (
    analysis,
    assemblies,
    calculus,
    experiment,
    metrics,
    plotting,
    stimulus,
)
from brainjax.simulation import simulate

CLASSES = 10
NAMES = [str(digit) for digit in range(CLASSES)]
SIDE = 8  # pixels
CHUNK_STEPS = 100  # divides the numbers of images, so that one program serves all runs
MIN_IMAGES_PER_CLASS = 100  # from which the claims are made


@dataclasses.dataclass(frozen=True)
class Settings:
    """Split, encoding, area and plasticity."""

    images_per_class: int = 120  # shown once each
    test_images: int = 500
    thresholds: tuple[float, ...] = (2, 6, 10, 14)  # brightness, in 0..16
    n: int = 2_000  # neurons
    k: int = 30  # winners
    p: float = 0.4  # probability of each synapse
    beta: float = 0.4  # plasticity of synapses from the image
    inhibition: float = 0.03  # received by each neuron at first; an image brings about 0.5
    inhibition_beta: float = 0.14  # growth of a neuron's inhibition each time it wins
    seed: int = 0
    brains: int = 20

    def __post_init__(self):
        require = experiment.require
        require(self.images_per_class >= 1, "images_per_class", "at least 1", self.images_per_class)
        require(self.brains >= 1, "brains", "at least 1", self.brains)
        require(self.beta >= 0, "beta", "at least 0", self.beta)
        require(self.inhibition >= 0, "inhibition", "at least 0", self.inhibition)
        require(self.inhibition_beta >= 0, "inhibition_beta", "at least 0", self.inhibition_beta)
        require(
            CLASSES <= self.test_images <= 1_000, "test_images", "in 10..1000", self.test_images
        )
        self.config(capacity=1)

    def config(self, capacity: int) -> assemblies.Config:
        """The brain; `capacity` is the most sensory neurons that fire at once."""
        num_sensory = 2 * len(self.thresholds) * SIDE**2
        return assemblies.Config(
            areas=[assemblies.Area("area", self.n, self.k)],
            inputs=[assemblies.Input("image", num_sensory, capacity)],
            stimuli=[assemblies.Stimulus("inhibition", 1)],
            fibers=[
                assemblies.Fiber("image", "area", self.p, normalise=True),
                assemblies.Fiber("inhibition", "area", 1.0),
            ],
        )


SMOKE = Settings(images_per_class=30, test_images=100, n=300, k=15, inhibition_beta=0.3, brains=2)


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images with their classes."""

    pixels: np.ndarray  # samples x 64, brightness in 0..16
    labels: np.ndarray  # samples


@dataclasses.dataclass(frozen=True)
class Readout:
    """What is read out of one brain."""

    assemblies: np.ndarray  # classes x neurons, who belongs to the class
    guesses: np.ndarray  # test images, by overlap
    accuracy_overlap: float
    accuracy_linear: float


def run(settings: Settings) -> dict:
    """Read out every brain, before and after learning."""
    train, test = load(settings)
    images = stimulus.active_sets(
        stimulus.thermometer(
            np.concatenate([train.pixels, test.pixels]), settings.thresholds, complement=True
        )
    )
    config = settings.config(images.indices.shape[1])
    measured = metrics.Metrics()
    show = functools.partial(_show, settings, config, measured)

    born = birth(settings, config)
    untrained, _ = show(jax.tree.map(jnp.copy, born), images, learning=False)
    shown = jax.tree.map(lambda leaf: leaf[: len(train.labels)], images)
    history, brains = show(born, shown, learning=True)
    weights = np.asarray(brains.synapses["image->area"].weights[0])
    learned, _ = show(brains, images, learning=False)

    readouts = {
        "learned": [read_out(settings, winners, train, test) for winners in learned],
        "untrained": [read_out(settings, winners, train, test) for winners in untrained],
    }
    return _report(settings, readouts, pixel_baselines(train, test)) | {
        "metrics": measured,
        "records": {
            "readouts": readouts,
            "train": train,
            "test": test,
            "weights": weights,
            "learning": analysis.fired(history[0], settings.n),
            "seen": analysis.fired(learned[0, : len(train.labels)], settings.n),
        },
    }


def check(result: dict) -> None:
    """The claims, for runs that show enough images of each class to learn from."""
    if result["images_per_class"] < MIN_IMAGES_PER_CLASS:
        return
    figures, baselines = result["over_brains"], result["baselines"]
    claims = {
        "learning raises the overlap readout": (
            figures["learned_overlap"]["low"],
            figures["untrained_overlap"]["high"],
        ),
        "learning raises the linear readout": (
            figures["learned_linear"]["low"],
            figures["untrained_linear"]["high"],
        ),
        "overlap beats the nearest class mean of the pixels": (
            figures["learned_overlap"]["low"],
            baselines["nearest_class_mean"],
        ),
        "linear beats the nearest class mean of the pixels": (
            figures["learned_linear"]["low"],
            baselines["nearest_class_mean"],
        ),
    }
    for text, (ours, theirs) in claims.items():
        experiment.claim(ours > theirs, f"{text}: {ours:.3f} > {theirs:.3f}")


def load(settings: Settings) -> tuple[Digits, Digits]:
    """Return training images, class after class, and test images; the split never changes."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("digits need scikit-learn; run `pip install brainjax[data]`") from error
    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=settings.test_images, stratify=labels, random_state=0
    )
    available = int(np.bincount(labels[train]).min())
    wanted = settings.images_per_class
    experiment.require(wanted <= available, "images_per_class", f"at most {available}", wanted)
    shown = np.concatenate([train[labels[train] == c][:wanted] for c in range(CLASSES)])
    return Digits(pixels[shown], labels[shown]), Digits(pixels[test], labels[test])


def birth(settings: Settings, config: assemblies.Config) -> assemblies.State:
    """Draw the brains, and turn the synapses of the inhibitory block negative."""
    params = assemblies.Params(beta=config.per_fiber(settings.beta))
    state = experiment.births(config, params, jax.random.key(settings.seed), settings.brains)
    inhibitory = jax.tree.map(
        lambda weights: -settings.inhibition * weights, state.synapses["inhibition->area"]
    )
    synapses = {**state.synapses, "inhibition->area": inhibitory}
    return dataclasses.replace(state, synapses=synapses)


def _show(settings, config, measured, brains, images, *, learning):
    """Winners of every brain for every image, one round each: brains x images x k."""
    params = assemblies.Params(
        beta=config.per_fiber(settings.beta, {"inhibition->area": settings.inhibition_beta})
    )
    fibers = ("image->area", "inhibition->area") if learning else ("image->area",)
    drive = calculus.repeat(config.drive(*fibers, plastic=learning), len(images.count))
    brains, winners = simulate(
        assemblies.step,
        config,
        params,
        brains,
        dataclasses.replace(drive, inputs={"image": images}),
        record=_winners,
        in_axes=(None, 0, None),
        chunk_steps=CHUNK_STEPS,
        metrics=measured,
        progress=True,
    )
    return np.moveaxis(winners, 1, 0), brains


def _winners(state):
    return state.winners["area"].indices


def read_out(settings: Settings, winners: np.ndarray, train: Digits, test: Digits) -> Readout:
    """Fit both readouts to the winners of the training images and try them on the others."""
    from sklearn.linear_model import RidgeClassifier

    seen, unseen = np.split(analysis.fired(winners, settings.n), [len(train.labels)])
    members = analysis.class_assemblies(analysis.firing_rates(seen, train.labels, CLASSES))
    # All of one length, so that the readout compiles once.
    lexicon = stimulus.active_sets(members, settings.n)
    guesses = np.asarray(analysis.read_out(lexicon, stimulus.active_sets(unseen, settings.k)))
    linear = RidgeClassifier(alpha=10.0).fit(seen, train.labels)
    return Readout(
        assemblies=members,
        guesses=guesses,
        accuracy_overlap=float((guesses == test.labels).mean()),
        accuracy_linear=float(linear.score(unseen, test.labels)),
    )


def pixel_baselines(train: Digits, test: Digits) -> dict[str, float]:
    """Accuracy of standard classifiers on the pixels of the same images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    means = np.stack([train.pixels[train.labels == c].mean(axis=0) for c in range(CLASSES)])
    distances = np.linalg.norm(test.pixels[:, None] - means, axis=2)
    found = {
        "chance": 1 / CLASSES,
        "nearest_class_mean": float((distances.argmin(axis=1) == test.labels).mean()),
    }
    for name, classifier in (
        ("logistic_regression", LogisticRegression(max_iter=2_000)),
        ("nearest_neighbour", KNeighborsClassifier(1)),
    ):
        classifier.fit(train.pixels, train.labels)
        found[name] = float(classifier.score(test.pixels, test.labels))
    return found


def _report(settings, readouts, baselines):
    """Figures per brain, over brains, and in words."""
    figures = {
        f"{state}_{readout}": [getattr(of_brain, f"accuracy_{readout}") for of_brain in of_state]
        for state, of_state in readouts.items()
        for readout in ("overlap", "linear")
    }
    over_brains = {name: analysis.summarise(of_brains) for name, of_brains in figures.items()}
    renamed = {name.replace("learned", "accuracy"): v for name, v in figures.items()}
    return {
        "results": [dict(zip(renamed, of_brain)) for of_brain in zip(*renamed.values())],
        "figures": figures,
        "over_brains": {name: dataclasses.asdict(s) for name, s in over_brains.items()},
        "baselines": baselines,
        "images_per_class": settings.images_per_class,
        "summary": over_brains
        | {f"pixels, {name}": accuracy for name, accuracy in baselines.items()}
        | {"in words": _in_words(over_brains, baselines)},
    }


def _in_words(figures, baselines):
    overlap, linear = figures["learned_overlap"].mean, figures["learned_linear"].mean
    return (
        f"Assemblies name {overlap:.1%} of unseen digits by overlap alone and {linear:.1%} with a "
        f"linear readout, against {baselines['nearest_class_mean']:.1%} for the nearest class "
        f"mean, {baselines['logistic_regression']:.1%} for logistic regression and "
        f"{baselines['nearest_neighbour']:.1%} for the nearest neighbour on the pixels."
    )


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw accuracies and confusions, what the assemblies have learned, and who fires."""
    records = result["records"]
    figures = {
        "digits_accuracy.png": _draw_accuracy(result),
        "digits_assemblies.png": _draw_assemblies(records),
        "digits_winners.png": _draw_winners(records),
    }
    return [plotting.save(figure, folder / name) for name, figure in figures.items()]


def _draw_accuracy(result):
    figures, baselines = result["figures"], result["baselines"]
    figure = plotting.new_figure(11.0, 4.6, "Handwritten digits, read out of an assembly area")
    bars, confusion = figure.subplots(1, 2, width_ratios=(1.25, 1))
    values = {
        "overlap with\nclass assemblies": figures["learned_overlap"],
        "overlap,\nwithout learning": figures["untrained_overlap"],
        "linear readout\nof winners": figures["learned_linear"],
        "linear,\nwithout learning": figures["untrained_linear"],
        "pixels: nearest\nclass mean": [baselines["nearest_class_mean"]],
        "pixels: logistic\nregression": [baselines["logistic_regression"]],
        "pixels: nearest\nneighbour": [baselines["nearest_neighbour"]],
    }
    plotting.draw_bars(bars, values, references={"chance": baselines["chance"]})
    brains = len(result["results"])
    bars.set(xlabel=f"accuracy on unseen digits (mean, sd of {brains} brains)", xlim=(0, 1.22))
    records = result["records"]
    counts = np.sum(
        [
            analysis.confusion_matrix(records["test"].labels, readout.guesses, CLASSES)
            for readout in records["readouts"]["learned"]
        ],
        axis=0,
    )
    plotting.draw_matrix(confusion, counts / counts.sum(axis=1, keepdims=True), labels=NAMES)
    confusion.set(xlabel="read out by overlap", ylabel="digit shown", title="share of readings")
    return figure


def _draw_assemblies(records):
    readout, train, test = records["readouts"]["learned"][0], records["train"], records["test"]
    weights = np.stack([records["weights"][:, of].mean(axis=1) for of in readout.assemblies])
    on, off = np.split(weights.reshape(CLASSES, -1, SIDE, SIDE), 2, axis=1)
    figure = plotting.new_figure(10.0, 3.6, "Ten class assemblies of one brain")
    axes = figure.subplots(3, CLASSES)
    rows = ("mean image\nshown", "learned weights\n(ON - OFF)", "mean unseen\nimage it claims")
    for row, text in zip(axes, rows):
        row[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    for c in range(CLASSES):
        shown, claimed = train.pixels[train.labels == c], test.pixels[readout.guesses == c]
        plotting.draw_image(axes[0, c], shown.mean(axis=0).reshape(SIDE, SIDE), title=NAMES[c])
        plotting.draw_signed_image(axes[1, c], (on[c] - off[c]).sum(axis=0))
        mean = claimed.sum(axis=0) / max(len(claimed), 1)
        plotting.draw_image(axes[2, c], mean.reshape(SIDE, SIDE))
    return figure


def _draw_winners(records):
    labels, learning, seen = (records["train"].labels, records["learning"], records["seen"])
    rates = analysis.firing_rates(learning, labels, CLASSES)
    order = np.lexsort((-rates.max(axis=0), rates.argmax(axis=0), rates.max(axis=0) == 0))
    figure = plotting.new_figure(11.0, 4.4, "Who fires in one brain")
    raster, overlaps = figure.subplots(1, 2, width_ratios=(1.5, 1))
    plotting.draw_raster(raster, learning[:, order])
    raster.set_xticks(len(labels) / CLASSES * (np.arange(CLASSES) + 0.5), NAMES)
    raster.set(xlabel="digit shown, image by image", ylabel="neuron, sorted by its class")
    members = records["readouts"]["learned"][0].assemblies
    shared = seen.astype(float) @ members.T / seen.sum(axis=1, keepdims=True)
    mean = np.stack([shared[labels == c].mean(axis=0) for c in range(CLASSES)])
    plotting.draw_matrix(overlaps, mean, labels=NAMES)
    overlaps.set(xlabel="class assembly", ylabel="digit shown", title="mean overlap of winners")
    return figure


def main() -> int:
    """Run from the command line."""
    return experiment.main(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
