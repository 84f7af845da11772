"""The router beside nginx: reads what a request asks for, and says which upstream it is for."""
