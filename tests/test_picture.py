"""Pictures are written, or shown by a notebook; the global state of matplotlib stays."""

import matplotlib

from unfreeze.core.audit import Audit, LayerMovement, StageAudit
from unfreeze.picture import page
from unfreeze.report.run_plots import plot_moved

PNG = b"\x89PNG"


def test_a_picture_is_written_or_shown(tmp_path):
    before = dict(matplotlib.rcParams)
    with page(tmp_path / "a.png", 2.0, 1.0) as figure:
        figure.subplots().plot([1, 2])
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    with page(None, 2.0, 1.0) as figure:
        figure.subplots().set_title("$not TeX$")
    shown = figure._repr_png_()
    assert shown.startswith(PNG)
    # Width and height, in pixels of 1/100 inch.
    assert int.from_bytes(shown[16:20], "big") == 200
    assert int.from_bytes(shown[20:24], "big") == 100
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
    assert dict(matplotlib.rcParams) == before


def test_a_plot_without_a_path_is_a_figure():
    layers = (LayerMovement("dense", 3, True, 0.5, 0.1), LayerMovement("conv", 9, False, 0.0, 0.0))
    figure = plot_moved(Audit((StageAudit("head", layers),)))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["dense", "conv"]
    assert figure._repr_png_().startswith(PNG)
