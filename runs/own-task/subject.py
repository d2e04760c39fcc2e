"""Exit code 0 for a subject line as it is wanted, 1 for another text."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text(encoding="utf-8").strip()
words = re.findall(r"[\w'-]+", text.removeprefix("Subject:"))
right = text.startswith("Subject:") and "\n" not in text and 2 <= len(words) <= 6 and words[-1] in ("please", "today")
sys.exit(0 if right else 1)
