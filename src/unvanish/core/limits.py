"""The thresholds of a reading of the depth, each with its reason; ratios and accounts are in nats."""

from __future__ import annotations

import math

# -- is the gradient lost or growing?
RATIO = 3.0  # |ln ratio| of the first layer's gradient to the last one's: 20 times smaller still trains
NOISE = 1.5  # times sqrt(KAPPA sum 1/n): three standard deviations of what the width alone does
KAPPA = 5.0  # of a ReLU (Hanin and Nica 2020)
ERROR = 2.0  # times the limit: an error rather than a warning
NORMALISED = 11 / 6  # times the limit: 5.5 nats if most layers are normalised, since a gradient then counts
# relative to its weights; MobileNet and GoogLeNet at their published initialisation lie between 3 and 5.5
POSITIONS = 9  # positions of an image that count towards the width: a kernel of 3 x 3 sees as many

# -- which account bears it?
RELU = 0.5 * math.log(2.0)  # what a ReLU costs, which weights are drawn to make up for (He et al. 2015)
CONTRACTING = -1.0  # a row's slope account: a root mean square slope under 0.37
STEEP = 0.7  # times CONTRACTING: a row that may be one of those whose mean contracts
PINCHED = 2.0  # a layer's weights lie this far from the median of all: sevenfold
POLE = 3.0  # nats of a divisor below the usual one: norms of 8 features and more lie within 2 of it
SATURATED = 0.5  # share of flat units from which a row's loss is that of saturation
SHARE = 0.1  # of the loss, that weights and slopes must bear to be its cause
BEARS = 0.5  # of the loss, that residual sums or activations must bear to be its cause
SATURATION = -1.0  # of all saturated rows together: less is no cause
