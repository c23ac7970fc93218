// Goroutines that read a tree and write files of their own, each on whichever thread the scheduler gives it.
//
//	goroutines TREE DIRECTORY
package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func copyOne(source, directory string, number int) {
	in := must(os.Open(source))
	defer in.Close()
	name := filepath.Join(directory, fmt.Sprint(number))
	out := must(os.Create(name))
	must(io.Copy(out, in)) // copy_file_range
	must(out.WriteAt([]byte("in between"), int64(number)))
	must(out.Seek(-3, io.SeekEnd))
	must(out.Write([]byte("end")))
	must(out.ReadAt(make([]byte, 5), 0))
	check(out.Sync())
	check(out.Close())
	check(os.Rename(name, name+".done"))
	if _, err := os.Stat(name); err == nil {
		os.Exit(3)
	}
}

func main() {
	tree, directory := os.Args[1], os.Args[2]
	check(os.MkdirAll(directory, 0o755))
	names := make(chan string)
	var group sync.WaitGroup
	var next sync.Mutex
	number := 0
	for range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for name := range names {
				next.Lock()
				number++
				mine := number
				next.Unlock()
				copyOne(name, directory, mine)
			}
		}()
	}
	check(filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names <- path
		}
		return err
	}))
	close(names)
	group.Wait()
	file := must(os.OpenFile(filepath.Join(directory, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600))
	writer := bufio.NewWriter(file)
	fmt.Fprintln(writer, number)
	check(writer.Flush())
	view := must(syscall.Mmap(int(must(os.Open(filepath.Join(directory, "1.done"))).Fd()), 0, 4, syscall.PROT_READ, syscall.MAP_PRIVATE))
	fmt.Println(view[0])
	check(syscall.Munmap(view))
	check(os.RemoveAll(directory))
}
