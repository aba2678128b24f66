"""A claim: rotations of digits that lie between those of training are no problem to ERM; the outermost are (DomainBed).

    ./launch.sh sweep configs/claims/domainbed_rotations.py
    ./launch.sh table runs/claims/domainbed_rotations --mean

scikit-learn's digits in six domains, rotated by 0 to 75 degrees, each digit in one of them; ERM and matched moments
with DomainBed's defaults, two trials, 200 updates in place of 5,001. Not measured yet.
"""

from configs.claims._domainbed import make_domainbed, sweep_domainbed

METHODS = ('source_only', 'mean_cov')
DOMAINS = ('0', '15', '30', '45', '60', '75')


def get_config(arg: str = ''):
    model = dict(name='domain_adversarial.digit_network', num_classes=10, channels=(16, 32), units=64)
    return make_domainbed('rotated_digits', dict(style='uci', size=16), model, DOMAINS, 20 if arg == 'smoke' else 200)


def sweep():
    yield from sweep_domainbed(METHODS, DOMAINS, draws=1, trials=2, leave_out=False)


def pictures(runs):
    from experiments.claims.adaptation import draw_domainbed

    return draw_domainbed(runs, METHODS)
