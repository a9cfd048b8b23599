"""What the words mean: each module is resource declarations and their verbs; reads need no code here."""
