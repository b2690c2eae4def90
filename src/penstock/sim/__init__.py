"""The real engine on a virtual clock, with a scripted world."""
