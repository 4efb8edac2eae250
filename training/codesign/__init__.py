"""Co-design: a network is trained to resemble what the crossbars hold already.

    python -m training.codesign --assets DIR                # ResNet-20 on 16 arrays of 128 columns
    python -m training.codesign --model gpt-small --price 20 --price 40

The weights are placed by the policy. Then, step by step, the words are chosen that cost least, in
squared errors and in writes, and the loss of the network that holds them trains the weights behind
them. A run that was killed goes on where it stopped when it is started again.
"""

from training.codesign.command import main
from training.codesign.job import run_rounds
from training.codesign.settings import CodesignOptions

__all__ = ["CodesignOptions", "main", "run_rounds"]
