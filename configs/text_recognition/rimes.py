"""Handwritten French lines of RIMES (Grosicki & El Abed 2011) by convolutions, LSTMs and CTC (Puigcerver 2017).

    ./launch.sh run configs/text_recognition/rimes.py --config.data.source.path=~/data/rimes

The folder has `training_2011.xml`, `eval_2011_annotated.xml` and their images (docs/text_data.md). The last 100 pages
of the training set are the validation set. Case and accents count.

Not run here. `:smoke` draws lines of one to three of 64 French words in the fonts that matplotlib ships, slanted and
uneven, in place of handwriting: a character error rate of 0.4 %.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from canon.data.text.alphabets import find_characters
from configs.text_recognition._lines import make_config

# The letters of French besides ASCII, in both cases, and signs of letters to companies.
CHARACTERS = find_characters('printable_ascii') + 'àâäçèéêëîïôöùûüœæÀÂÄÇÈÉÊËÎÏÔÖÙÛÜŒÆ°²€£«»’…'
# Words of letters to companies and administrations.
WORDS = (
    'Madame', 'Monsieur', 'vous', 'votre', 'nous', 'notre', 'mon', 'mes', 'ma', 'je', 'me', 'suis', 'été', 'avoir',
    'contrat', 'numéro', 'référence', 'client', 'compte', 'adresse', 'téléphone', 'banque', 'société', 'facture',
    'réclamation', 'résiliation', 'commande', 'livraison', 'assurance', 'véhicule', 'sinistre', 'dossier', 'août',
    'février', 'décembre', 'janvier', 'où', 'à', 'dès', 'très', 'reçu', 'ça', 'même', 'être', 'prie', 'agréer',
    'expression', 'sentiments', 'distingués', 'salutations', 'cordialement', 'merci', 'avance', 'réponse', 'délai',
    'jours', 'mois', 'année', 'euros', 'francs', 'demande', 'souhaite', 'connaître', 'modalités',
)  # fmt: skip


def get_config(arg: str = '') -> ConfigDict:
    source = dict(
        path=placeholder(str),  # the folder, or an uncompressed tar of it
        outside='skip',  # leaves out texts with a character that is not in text.characters, and logs how many
    )
    return make_config('rimes_lines', source, CHARACTERS, 120, WORDS, smoke=arg == 'smoke')
