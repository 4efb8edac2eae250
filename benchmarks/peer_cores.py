"""The cores of CrossSim and the tiles of aihwkit that `benchmarks.peers` measures.

That of CrossSim is written for its version 3.1, from its source, and has never been run.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BITS, ADC_BITS = 8, 8
SECONDS = 3600.0  # from the first read of PCM, 20 s after programming, to the one that counts


class Size(NamedTuple):
    """How much is worked on: an array of `side` x `side` weights, `vectors` of inputs, `chips`."""

    side: int = 256
    vectors: int = 64
    chips: int = 16
    rounds: int = 15


def crosssim_core(weights: np.ndarray, style: str, size: Size, pcm: bool = False) -> Any:
    """A core of CrossSim: 8 slices in offset binary, or a balanced pair of cells a weight.

    Written for CrossSim 3.1. `pcm` adds its programming error and drops the converters.
    """
    simulator = importlib.import_module("simulator")
    params = simulator.CrossSimParameters()
    params.core.style = style
    params.core.weight_bits = BITS
    params.core.rows_max = params.core.cols_max = size.side
    if style == "BITSLICED":
        params.core.bit_sliced.num_slices = BITS
        params.core.bit_sliced.style = "OFFSET"
        params.core.offset.style = "DIGITAL_OFFSET"
    params.xbar.device.cell_bits = 1 if style == "BITSLICED" else BITS - 1
    if pcm:
        # 25 and 0.25 uS
        params.xbar.device.Rmin, params.xbar.device.Rmax = 4e4, 4e6
        params.xbar.device.programming_error.enable = True
        params.xbar.device.programming_error.model = "PCMJoshi"
        return simulator.AnalogCore(weights.T, params)
    params.xbar.device.infinite_on_off_ratio = True
    # inputs from 0 on, bit by bit
    params.core.mapping.inputs.mvm.min = 0.0
    params.core.mapping.inputs.mvm.max = float(2 ** (BITS - 1) - 1)
    params.xbar.dac.mvm.model = "QuantizerDAC"
    params.xbar.dac.mvm.signed = False
    params.xbar.dac.mvm.bits = BITS - 1
    params.xbar.dac.mvm.input_bitslicing = True
    params.xbar.adc.mvm.adc_per_ibit = True
    params.xbar.adc.mvm.bits = ADC_BITS
    params.xbar.adc.mvm.adc_range_option = "CALIBRATED"
    # all rows at the highest level
    rows = float(size.side)
    if style == "BITSLICED":
        params.xbar.adc.mvm.signed = False
        params.xbar.adc.mvm.model = "QuantizerADC"
        params.xbar.adc.mvm.calibrated_range = [[0.0, rows]] * BITS
    else:
        params.xbar.adc.mvm.model = "SignMagnitudeADC"
        params.xbar.adc.mvm.calibrated_range = [-rows, rows]
    return simulator.AnalogCore(weights.T, params)


def aihwkit_modules() -> tuple[Any, Any, Any]:
    """torch, the configurations of aihwkit and its layers."""
    names = "torch", "aihwkit.simulator.configs", "aihwkit.nn"
    torch, configs, nn = map(importlib.import_module, names)
    return torch, configs, nn


def aihwkit_pcm() -> Any:
    """The PCM of aihwkit between 0.25 and 25 uS, as memsim has it."""
    converters = importlib.import_module("aihwkit.inference.converter.conductance")
    noises = importlib.import_module("aihwkit.inference.noise.pcm")
    return noises.PCMLikeNoiseModel(
        g_converter=converters.SinglePairConductanceConverter(g_max=25.0, g_min=0.25)
    )


def aihwkit_bit_wise(
    weights: np.ndarray, inputs: np.ndarray, size: Size
) -> Callable[[], np.ndarray]:
    """Products of aihwkit bit by bit: 7 of magnitude, a conversion each, no noise, no IR drop."""
    torch, configs, nn = aihwkit_modules()
    enums = importlib.import_module("aihwkit.simulator.parameters.enums")
    config = configs.TorchInferenceRPUConfigIRDropT()
    config.mapping.weight_scaling_omega = 1.0
    forward, resolution = config.forward, 1 / (2**BITS - 2)
    forward.mv_type = enums.AnalogMVType.BIT_WISE
    forward.bound_management = enums.BoundManagementType.NONE
    forward.ir_drop = forward.out_noise = forward.w_noise = 0.0
    forward.inp_res, forward.out_res = resolution, 1 / (2**ADC_BITS - 2)
    forward.out_bound = 2 * resolution * size.side  # all rows at the highest level
    layer = nn.AnalogLinear(size.side, size.side, bias=False, rpu_config=config).eval()
    layer.set_weights(torch.from_numpy(weights.T.copy()))
    driven = torch.from_numpy(inputs)

    def call() -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = layer(driven).numpy()
        return found

    return call


def aihwkit_chips(
    weights: np.ndarray, inputs: np.ndarray | None, size: Size, chips: int
) -> Callable[[], np.ndarray]:
    """Programs and reads the tile of aihwkit that is in torch, chip by chip."""
    torch, configs, nn = aihwkit_modules()
    config = configs.TorchInferenceRPUConfig()
    config.noise_model, config.drift_compensation = aihwkit_pcm(), None
    config.forward.is_perfect = True
    config.mapping.weight_scaling_omega = 1.0
    layer = nn.AnalogLinear(size.side, size.side, bias=False, rpu_config=config).eval()
    layer.set_weights(torch.from_numpy(weights.T.copy()))

    def call() -> np.ndarray:
        found = []
        with torch.no_grad():
            for _ in range(chips):
                layer.program_analog_weights()
                if inputs is None:
                    found.append(layer.get_weights()[0].numpy().T)
                else:
                    layer.drift_analog_weights(SECONDS)
                    found.append(layer(torch.from_numpy(inputs)).numpy())
        return np.stack(found)

    return call
