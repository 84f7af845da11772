"""One archive for machines without internet, signed by who made it; and the proof, before it is used, that it still is that."""
