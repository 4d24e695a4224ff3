"""What the stored benchmarks say of the machine, beside what pytest-benchmark finds itself."""


def pytest_benchmark_update_machine_info(config, machine_info):
    import torch
    from measuring import machine

    machine_info["leakboard"] = machine(torch.device("cpu"))
