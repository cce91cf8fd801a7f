"""From captioned pictures to weights."""

import itemforge.engine  # noqa: F401  it says how torch's threads wait, before torch is loaded
