"""A defense's cost and proof: accuracy after federated training, certificates put to the test."""
