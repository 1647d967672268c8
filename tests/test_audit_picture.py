"""The picture of an audit: which points lie above the certified curve is told, and shown."""

import xml.etree.ElementTree as ET

import numpy as np

from accountant import Gaussian, TradeOff
from accountant.auditing.operating import operating_points
from dpsgd_torch.audit.picture import roc

CURVE = TradeOff([(Gaussian(noise_multiplier=1.0), 1)])


def points(mu, name):
    normal = np.random.default_rng(1).normal(size=(2, 400))
    return operating_points(normal[0], normal[1] + mu, ranks=[4, 40], name=name)


def test_an_honest_attack_is_drawn_below_the_curve_and_a_bug_in_red_above_it():
    honest = roc(CURVE, points(1.0, "loss"))
    assert "2 operating points, 0 above the certified curve" in honest
    assert "NOT below" not in honest
    bug = roc(CURVE, points(2.5, "loss"))
    assert "2 operating points, 2 above" in bug
    assert "NOT below the certified curve: 2" in bug


def test_it_is_one_element_of_xml_whatever_an_attack_is_called():
    root = ET.fromstring(roc(CURVE, points(1.0, "<b>&")))
    assert root.tag.endswith("svg")
    assert any(text.text == "<b>&" for text in root.iter() if text.tag.endswith("text"))


def test_points_that_no_run_reached_lie_on_the_axis_not_beyond():
    picture = roc(None, operating_points(range(32), range(-40, -8)))
    assert "3 operating points" in picture
    assert "nan" not in picture
    assert "inf" not in picture
