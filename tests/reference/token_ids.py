"""Token ids, special tokens included, of each line of standard input: `token_ids.py tokenizer.json`.

Prints a line of comma-separated ids for each.
"""

import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
for line in sys.stdin:
    print(",".join(map(str, tokenizer.encode(line.rstrip("\n")).ids)))
