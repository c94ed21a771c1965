"""Python's side of the live cells: runs in the page, and is packed for it by bnbook.live."""
