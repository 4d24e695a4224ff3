"""What a defense costs and proves: federated training, accuracy, certificates put to the test."""
