"""ERM on coloured digits by the protocol of IRM's authors: the baseline of `irm_coloured`, and its grey oracle.

    ./launch.sh run configs/adaptation/erm_coloured.py
    ./launch.sh run configs/adaptation/erm_coloured.py --config.data.source.grey=True     # the oracle

Network, rate and decay are those of `irm_coloured`. The authors' script has others: 256 units, 1e-3 and 1e-3 for ERM;
83 units, 2.8e-3, 8.6e-4 and 101 updates for the oracle.

`:smoke`, seed 0: 20.3 % of the target, in 30 s. The paper has 17.1 % for ERM and 73.0 % for the oracle with 50,000
digits; on MNIST-5k see `configs/claims/irm_colours.py`.
"""

from ml_collections import ConfigDict

from configs.adaptation._coloured import make_coloured


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    # IRM with the weight 0 is ERM with the same decay.
    method = dict(name='irm', weight=0.0, anneal_steps=0, l2=1.1e-3, rescale=False)
    return make_coloured(method, 'uci' if smoke else 'mnist_5k', at_least=0.1, smoke=smoke)
