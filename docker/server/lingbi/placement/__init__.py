"""Which worker serves which model, on which card, with how much of its memory."""
