"""SQL to trees and back: read, walked, written with the original words, proven to be the same."""
