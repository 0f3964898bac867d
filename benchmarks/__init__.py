"""Side-by-side ratios against rivals in the same process; tests never time anything."""
