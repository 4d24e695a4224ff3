"""The kernel posterior of one cloud: known answers at both ends of the noise, and Bayes' rule between them."""

import math

import torch
from torch.distributions import MultivariateNormal

from attacks.public.clouds import Cloud, Kernel


def test_both_ends_of_the_noise_are_known_of_one_cloud():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(9, 4, generator=draw, dtype=torch.float64)
    points = torch.randn(9, 3, generator=draw, dtype=torch.float64)
    cloud = Cloud.around(pixels, torch.zeros(9, dtype=torch.long), points - points.mean(0))
    assert torch.allclose(cloud.mean(cloud.points, Kernel(0.0, 0.0))[0], pixels)
    for smoothing in (0.0, 0.7):
        far = cloud.mean(cloud.points, Kernel(smoothing, 1e12))[0]
        assert torch.allclose(far, pixels.mean(0).expand(9, -1), atol=1e-9)


def test_the_mean_of_a_cloud_is_bayes_rule_over_its_kernels():
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    pixels = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    points = (pixels - pixels.mean(0)) @ mixing
    # Principal coordinates: of uncorrelated entries.
    points = points @ torch.linalg.eigh(points.T @ points)[1]
    cloud, choice = Cloud.around(pixels, torch.zeros(40, dtype=torch.long), points), Kernel(0.4, 0.3)
    release = torch.randn(3, generator=draw, dtype=torch.float64)
    covariance = torch.diag(0.3 + 0.4 * cloud.variances)
    members = [(image, point) for image, point in zip(cloud.pixels, cloud.points, strict=True)]
    for i, near in enumerate(cloud.near.tolist()):
        assert near == (cloud.points - cloud.points[i]).norm(dim=1).argsort()[1:11].tolist()
        members += [((cloud.pixels[i] + cloud.pixels[j]) / 2, (cloud.points[i] + cloud.points[j]) / 2) for j in near]
    answers, evidence = [], []
    for image, point in members:
        centre = math.sqrt(0.6) * point
        evidence.append(MultivariateNormal(centre, covariance).log_prob(release))
        gain = 0.4 * cloud.covariances.T @ torch.linalg.inv(covariance)
        answers.append(cloud.middle + math.sqrt(0.6) * image + gain @ (release - centre))
    expected = torch.stack(evidence).softmax(0) @ torch.stack(answers)
    assert torch.allclose(cloud.mean(release[None], choice)[0][0], expected)
